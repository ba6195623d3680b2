/* Which rows of a batch's scores are kept as history: the loop of stream/sinks/thin.py, which owns every array and says
 * what is kept and why. Rows are sorted by asset, and by time within one. */
#include <math.h>
#include <stdint.h>

typedef struct {
    int64_t rows;
    const int32_t *asset;
    const int64_t *at_ms;
    const double *score, *threshold;
    const uint8_t *anomalous, *verdict;
    const int64_t *codes; /* by asset: its place in what is remembered */
    const int64_t *phase;
    int64_t *slot, *status;
    double *written;
    int64_t every_ms;
    double change; /* a share of the threshold; NaN: what changed by how much is not looked at */
    int64_t *kept; /* what came of it: the rows */
} Thinning;

static inline int64_t floored(int64_t number, int64_t by) { return number / by - (number % by < 0); }

/* What this file and stream/sinks/thin.py must agree on. */
int64_t headrace_thin_version(void) { return 1; }

/* How many rows are kept. */
int64_t headrace_thin(const Thinning *of) {
    int64_t count = 0;
    for (int64_t row = 0; row < of->rows;) {
        int64_t asset = of->asset[row], code = of->codes[asset], phase = of->phase[code];
        int64_t slot = of->slot[code], status = of->status[code];
        double written = of->written[code];
        for (; row < of->rows && of->asset[row] == asset; row++) {
            double score = of->score[row], threshold = of->threshold[row];
            int64_t alarming = of->anomalous[row] || score >= threshold;
            int64_t now = floored(of->at_ms[row] + phase, of->every_ms);
            int64_t as = of->verdict[row] * 8 + alarming * 4 + of->anomalous[row] * 2 + (isfinite(score) != 0);
            if (alarming || now != slot || as != status || fabs(score - written) > of->change * threshold) {
                of->kept[count++] = row;
                written = score;
            }
            slot = now;
            status = as;
        }
        of->slot[code] = slot;
        of->status[code] = status;
        of->written[code] = written;
    }
    return count;
}
