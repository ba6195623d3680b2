/* One step after the other of forecasters whose state is carried: what models/stepping.py does with numpy, in one call.
 *
 * Called from models/compiled_steps.py, which owns every array and has checked each. TILE assets go together: a number
 * of each of them stands in a column, all arithmetic is done for whole tiles, and no column looks at another. So the bits
 * of a row's score depend neither on the other assets of a batch nor on how batches are cut, and there are no tails.
 *
 * The file includes itself once for each instruction set of x86: the code is the same, the vectors get wider. Which of
 * them the CPU has is asked when it runs. Elsewhere it is compiled once.
 */
#ifndef SECTION
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define TILE 16
#define PANEL 12 /* rows of weights that lie side by side, as Python lays them: (panel, depth, PANEL) */

enum { LSTM = 0, GRU = 1, SIMPLE = 2 };

typedef struct {
    int64_t cell, units, inputs;
    int64_t rows;         /* of the product: the gates, and of the last layer also what is foretold */
    const float *weights; /* (panel, state + input + 1, PANEL) */
} Layer;

typedef struct {
    int64_t signals, lags, ages;
    int64_t layers; /* 0: what was foretold is given */
    const Layer *layer;
    const float *linear;       /* (lag, signal) */
    const float *spread;       /* (signal,): one divided by it */
    const float *whitener;     /* (panel, signal, PANEL) */
    const float *recent_total; /* (age,) from 1 on: one divided by it, as the next */
    const float *level_power;
    const float *weights;        /* (2, 3), as view_weights gives them */
    float clip, recent, level;   /* the rates of the means */
    float recent_keep, level_keep;
} Model;

typedef struct {
    int64_t assets;
    const int64_t *slots, *counts, *starts; /* (asset,); those with most rows first */
    const float *rows;                      /* (row, signal) */
    const float *foretold;                  /* (row, signal) if there are no layers */
    float *const *states;                   /* of each layer its states, (slot, unit) */
    float *past;                            /* (slot, lag, signal) */
    float *means;                           /* (slot, 2 * signal) */
    int32_t *seen;                          /* (slot,) */
    double *score;                          /* (row,) */
    double *contributions;                  /* (row, signal) */
    float *expected;                        /* (row, signal) */
    float *scratch;                         /* begins at a multiple of 64 bytes */
} Batch;

static const int64_t COLUMNS[TILE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static int64_t panels(int64_t rows) { return (rows + PANEL - 1) / PANEL; }

static int64_t most_rows(const Model *model) {
    int64_t most = model->signals;
    for (int64_t n = 0; n < model->layers; n++)
        if (model->layer[n].rows > most) most = model->layer[n].rows;
    return panels(most) * PANEL;
}

/* Floats of scratch that a batch needs. */
int64_t headrace_steps_scratch(const Model *model) {
    int64_t floats = most_rows(model) + model->lags * model->signals + 7 * model->signals + panels(model->signals) * PANEL;
    for (int64_t n = 0; n < model->layers; n++) {
        const Layer *layer = model->layer + n;
        floats += layer->units + layer->inputs + 1 + layer->units;
    }
    return floats * TILE;
}

/* What this file and models/compiled_steps.py must agree on. */
int64_t headrace_steps_version(void) { return 1; }

/* tanh(x) = x P(x^2) / Q(x^2) up to LIMIT, where it gets 1: fitted for the least relative error, and then the coefficients'
 * last bits for the least error with its rounding: 6 units in the last place at most (4e-7, near 1), 0.6 on average. NaN
 * stays NaN, and what is odd stays odd. */
#define LIMIT 8.90327358f
#define P1 1.339401603e-01f
#define P2 3.511050250e-03f
#define P3 2.086532913e-05f
#define P4 1.371465519e-08f
#define Q1 4.672733247e-01f
#define Q2 2.593571879e-02f
#define Q3 3.310990287e-04f
#define Q4 7.922772056e-07f

#define SECTION
#define JOIN(name, suffix) name##_##suffix
#define JOINED(name, suffix) JOIN(name, suffix)
#define NAME(name) JOINED(name, SUFFIX)

/* What every CPU of this kind has. NEON and SSE2 have vectors of four floats. */
#define SUFFIX base
#define WIDTH 4
#define ROWS 4
#define VECTORS 2
#if defined(__aarch64__)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define LEAST(limit, x) vminq_f32(limit, x)
#define MOST(limit, x) vmaxq_f32(limit, x)
#define SET(x) vdupq_n_f32(x)
#elif defined(__x86_64__)
#define FMA(a, b, c) ((a) * (b) + (c))
#define LEAST(limit, x) _mm_min_ps(limit, x)
#define MOST(limit, x) _mm_max_ps(limit, x)
#define SET(x) _mm_set1_ps(x)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#define LEAST(limit, x) CHOOSE((limit) < (x), limit, x)
#define MOST(limit, x) CHOOSE((limit) > (x), limit, x)
#define SET(x) ((Vector){x, x, x, x})
#endif
#include "steps.c"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define SUFFIX avx2
#define WIDTH 8
#define ROWS 6
#define VECTORS 2
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define LEAST(limit, x) _mm256_min_ps(limit, x)
#define MOST(limit, x) _mm256_max_ps(limit, x)
#define SET(x) _mm256_set1_ps(x)
#include "steps.c"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#endif
#define SUFFIX avx512
#define WIDTH 16
#define ROWS 12
#define VECTORS 1
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define LEAST(limit, x) _mm512_min_ps(limit, x)
#define MOST(limit, x) _mm512_max_ps(limit, x)
#define SET(x) _mm512_set1_ps(x)
#include "steps.c"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* The widest vectors that this CPU has: 0 as all have, 1 AVX2 with FMA, 2 AVX-512. */
int64_t headrace_steps_level(void) {
#if defined(__x86_64__) /* asked by hand: Zig's runtime knows of no __builtin_cpu_supports */
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_FMA) == 0 || (c & bit_OSXSAVE) == 0) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); /* which registers the system keeps */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & bit_AVX2) == 0 || (low & 0x6) != 0x6) return 0;
    return (b & bit_AVX512F) != 0 && (low & 0xE6) == 0xE6 ? 2 : 1;
#else
    return 0;
#endif
}

void headrace_steps_run(int64_t level, const Model *model, const Batch *batch) {
#if defined(__x86_64__)
    if (level == 2) run_avx512(model, batch);
    if (level == 1) run_avx2(model, batch);
#endif
    if (level == 0) run_base(model, batch);
}

/* tanh of `count` numbers, a multiple of TILE, in place: for tests. */
void headrace_steps_tanh(int64_t level, int64_t count, float *numbers) {
#if defined(__x86_64__)
    if (level == 2) tanh_avx512(count, numbers);
    if (level == 1) tanh_avx2(count, numbers);
#endif
    if (level == 0) tanh_base(count, numbers);
}

#else /* once for each instruction set */

#define Vector NAME(Vector)
#define Mask NAME(Mask)
typedef float Vector __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t Mask __attribute__((vector_size(4 * WIDTH), may_alias));

#define AT(floats) (*(Vector *)(floats))
#define GET(floats) (*(const Vector *)(floats))
#define CHOOSE(mask, yes, no) ((Vector)(((Mask)(yes) & (mask)) | ((Mask)(no) & ~(mask))))
#define EACH(c) for (int64_t c = 0; c < TILE; c += WIDTH)
/* tanh(x) = upper / lower */
#define RATIO(upper, lower, x)                                                                              \
    Vector upper, lower;                                                                                     \
    do {                                                                                                     \
        Vector z_ = MOST(SET(-LIMIT), LEAST(SET(LIMIT), x)), u_ = z_ * z_;                                   \
        upper = z_ * FMA(FMA(FMA(FMA(SET(P4), u_, SET(P3)), u_, SET(P2)), u_, SET(P1)), u_, SET(1.0f));      \
        lower = FMA(FMA(FMA(FMA(SET(Q4), u_, SET(Q3)), u_, SET(Q2)), u_, SET(Q1)), u_, SET(1.0f));           \
    } while (0)
#define TANH(out, x)                                                \
    do {                                                            \
        RATIO(upper_, lower_, x);                                   \
        out = MOST(SET(-1.0f), LEAST(SET(1.0f), upper_ / lower_));  \
    } while (0)
/* of twice the number: the weights are halved before */
#define SIGMOID(out, x)                       \
    do {                                      \
        TANH(out, x);                         \
        out = FMA(out, SET(0.5f), SET(0.5f)); \
    } while (0)

static void NAME(tanh)(int64_t count, float *numbers) {
    for (int64_t n = 0; n < count; n += WIDTH) {
        Vector some;
        memcpy(&some, numbers + n, sizeof some);
        TANH(some, some);
        memcpy(numbers + n, &some, sizeof some);
    }
}

/* made (row, TILE) = weights times x (depth, TILE); rows up to the next multiple of ROWS are written. */
static void NAME(product)(const float *weights, int64_t rows, int64_t depth, const float *x, float *made) {
    for (int64_t row = 0; row < rows; row += ROWS) {
        const float *panel = weights + row / PANEL * PANEL * depth + row % PANEL;
        for (int64_t column = 0; column < TILE; column += VECTORS * WIDTH) {
            Vector sums[ROWS][VECTORS];
            for (int r = 0; r < ROWS; r++)
                for (int v = 0; v < VECTORS; v++) sums[r][v] = SET(0.0f);
            for (int64_t k = 0; k < depth; k++) {
                const float *weight = panel + k * PANEL, *from = x + k * TILE + column;
                Vector right[VECTORS];
                for (int v = 0; v < VECTORS; v++) right[v] = GET(from + v * WIDTH);
                for (int r = 0; r < ROWS; r++) {
                    Vector left = SET(weight[r]);
                    for (int v = 0; v < VECTORS; v++) sums[r][v] = FMA(left, right[v], sums[r][v]);
                }
            }
            for (int r = 0; r < ROWS; r++)
                for (int v = 0; v < VECTORS; v++) AT(made + (row + r) * TILE + column + v * WIDTH) = sums[r][v];
        }
    }
}

/* From gates (gate, unit, TILE) and the state to the next state. */
static void NAME(gates)(int64_t cell, int64_t units, const float *made, float *hidden, float *memory) {
    int64_t block = units * TILE;
    if (cell == LSTM) {
        for (int64_t n = 0; n < block; n += WIDTH) {
            RATIO(entry, under_entry, GET(made + n)); /* sigmoid: (upper + lower) / (2 lower) */
            RATIO(forget, under_forget, GET(made + block + n));
            RATIO(candidate, under_candidate, GET(made + 3 * block + n));
            Vector under = under_entry * under_candidate; /* one division for the three, and one for the other two */
            Vector fresh = (entry + under_entry) * candidate * under_forget;
            Vector kept = FMA((forget + under_forget) * GET(memory + n), under, fresh) / ((under + under) * under_forget);
            AT(memory + n) = kept;
            RATIO(output, under_output, GET(made + 2 * block + n));
            RATIO(shown, under_shown, kept);
            AT(hidden + n) = (output + under_output) * shown / ((under_output + under_output) * under_shown);
        }
    } else if (cell == GRU) {
        for (int64_t n = 0; n < block; n += WIDTH) {
            Vector update, reset, candidate;
            SIGMOID(update, GET(made + n));
            SIGMOID(reset, GET(made + block + n));
            TANH(candidate, FMA(reset, GET(made + 3 * block + n), GET(made + 2 * block + n)));
            AT(hidden + n) = FMA(update, GET(hidden + n) - candidate, candidate);
        }
    } else {
        for (int64_t n = 0; n < block; n += WIDTH) TANH(AT(hidden + n), GET(made + n));
    }
}

/* Rows of numbers into columns of a tile (number, TILE), and columns `from` to `to` back into rows; row `c` of them is the
 * one at places[c]. Four by four where the machine has an instruction for it. */
static inline void NAME(lay)(const float *rows, const int64_t *places, int64_t stride, int64_t to, int64_t numbers,
                             float *tile) {
    for (int64_t c = 0, some; c < to; c += some) {
        const float *row = rows + places[c] * stride;
        int64_t n = 0;
        some = 1;
#if defined(__x86_64__)
        if (c + 4 <= to) {
            const float *second = rows + places[c + 1] * stride, *third = rows + places[c + 2] * stride,
                        *fourth = rows + places[c + 3] * stride;
            some = 4;
            for (; n + 4 <= numbers; n += 4) {
                __m128 a = _mm_loadu_ps(row + n), b = _mm_loadu_ps(second + n), d = _mm_loadu_ps(third + n),
                       e = _mm_loadu_ps(fourth + n);
                _MM_TRANSPOSE4_PS(a, b, d, e);
                float *at = tile + n * TILE + c;
                _mm_store_ps(at, a);
                _mm_store_ps(at + TILE, b);
                _mm_store_ps(at + 2 * TILE, d);
                _mm_store_ps(at + 3 * TILE, e);
            }
            for (int64_t rest = n; rest < numbers; rest++) {
                tile[rest * TILE + c + 1] = second[rest];
                tile[rest * TILE + c + 2] = third[rest];
                tile[rest * TILE + c + 3] = fourth[rest];
            }
        }
#endif
        for (; n < numbers; n++) tile[n * TILE + c] = row[n];
    }
}

static inline void NAME(unlay)(const float *tile, int64_t numbers, int64_t from, int64_t to, const int64_t *places,
                               int64_t stride, float *rows) {
    for (int64_t c = from, some; c < to; c += some) {
        float *row = rows + places[c] * stride;
        int64_t n = 0;
        some = 1;
#if defined(__x86_64__)
        if (c % 4 == 0 && c + 4 <= to) {
            float *second = rows + places[c + 1] * stride, *third = rows + places[c + 2] * stride,
                  *fourth = rows + places[c + 3] * stride;
            some = 4;
            for (; n + 4 <= numbers; n += 4) {
                const float *at = tile + n * TILE + c;
                __m128 a = _mm_load_ps(at), b = _mm_load_ps(at + TILE), d = _mm_load_ps(at + 2 * TILE),
                       e = _mm_load_ps(at + 3 * TILE);
                _MM_TRANSPOSE4_PS(a, b, d, e);
                _mm_storeu_ps(row + n, a);
                _mm_storeu_ps(second + n, b);
                _mm_storeu_ps(third + n, d);
                _mm_storeu_ps(fourth + n, e);
            }
            for (int64_t rest = n; rest < numbers; rest++) {
                second[rest] = tile[rest * TILE + c + 1];
                third[rest] = tile[rest * TILE + c + 2];
                fourth[rest] = tile[rest * TILE + c + 3];
            }
        }
#endif
        for (; n < numbers; n++) row[n] = tile[n * TILE + c];
    }
}

static inline void NAME(fetch)(const float *row, int64_t numbers) {
    for (int64_t n = 0; n < numbers; n += 16) __builtin_prefetch(row + n, 1);
}

/* Ask for what is remembered of the assets of a tile, before its turn comes. */
static void NAME(prefetch)(const Model *model, const Batch *batch, int64_t first, int64_t assets) {
    int64_t signals = model->signals, lags = model->lags;
    for (int64_t c = 0; c < assets; c++) {
        int64_t slot = batch->slots[first + c];
        float *const *state = batch->states;
        for (int64_t n = 0; n < model->layers; n++) {
            const Layer *layer = model->layer + n;
            NAME(fetch)(*state++ + slot * layer->units, layer->units);
            if (layer->cell == LSTM) NAME(fetch)(*state++ + slot * layer->units, layer->units);
        }
        NAME(fetch)(batch->past + slot * lags * signals, lags * signals);
        NAME(fetch)(batch->means + slot * 2 * signals, 2 * signals);
        __builtin_prefetch(batch->seen + slot, 1);
    }
}

static void NAME(run)(const Model *model, const Batch *batch) {
    const int64_t signals = model->signals, lags = model->lags, layers = model->layers;
    const int64_t wide = signals * TILE, last_age = model->ages;
    const float *weights = model->weights;
    float *room = batch->scratch;
    memset(room, 0, (size_t)headrace_steps_scratch(model) * sizeof *room);
    float *made = room;
    float *history = made + most_rows(model) * TILE; /* (lag, signal, TILE), a ring */
    float *given = history + lags * wide;
    float *foretold = given + wide;
    float *z = foretold + wide;
    float *recent = z + wide;
    float *level = recent + wide;
    float *share = level + wide;
    float *flat = share + wide; /* the shares as rows */
    float *whitened = flat + wide;
    float *const fed = whitened + panels(signals) * PANEL * TILE; /* of each layer (state, input, 1), then its memory */

    for (int64_t first = 0; first < batch->assets; first += TILE) {
        const int64_t *slots = batch->slots + first, *counts = batch->counts + first, *starts = batch->starts + first;
        int64_t left = batch->assets - first, active = left < TILE ? left : TILE;
        if (left > TILE) NAME(prefetch)(model, batch, first + TILE, left - TILE < TILE ? left - TILE : TILE);
        int64_t ages[TILE] = {0}, places[TILE] = {0}, youngest = INT64_MAX;
        float beginning[TILE] __attribute__((aligned(64))), total[TILE] __attribute__((aligned(64))),
            power[TILE] __attribute__((aligned(64)));
        for (int64_t c = 0; c < active; c++) {
            ages[c] = batch->seen[slots[c]];
            if (ages[c] < youngest) youngest = ages[c];
        }
        NAME(lay)(batch->past, slots, lags * signals, active, lags * signals, history);
        NAME(lay)(batch->means, slots, 2 * signals, active, signals, recent);
        NAME(lay)(batch->means + signals, slots, 2 * signals, active, signals, level);
        float *const *state = batch->states;
        float *x = fed;
        for (int64_t n = 0; n < layers; n++) {
            const Layer *layer = model->layer + n;
            NAME(lay)(*state++, slots, layer->units, active, layer->units, x);
            x += (layer->units + layer->inputs) * TILE;
            EACH(c) AT(x + c) = SET(1.0f);
            x += TILE;
            if (layer->cell == LSTM) NAME(lay)(*state++, slots, layer->units, active, layer->units, x);
            x += layer->units * TILE;
        }
        for (int64_t step = 0; active; step++) {
            const int64_t oldest = step % lags;
            const float *newest = history + (oldest ? oldest - 1 : lags - 1) * wide;
            for (int64_t c = 0; c < active; c++) places[c] = starts[c] + step;
            NAME(lay)(batch->rows, places, signals, active, signals, given);
            /* the cells: what is missing is read as the last that is known */
            float *known = layers ? fed + model->layer[0].units * TILE : z;
            for (int64_t n = 0; n < wide; n += WIDTH) {
                Vector now = GET(given + n);
                AT(known + n) = CHOOSE(now == now, now, GET(newest + n));
            }
            const float *rest = foretold;
            x = fed;
            for (int64_t n = 0; n < layers; n++) {
                const Layer *layer = model->layer + n;
                int64_t depth = layer->units + layer->inputs + 1;
                float *memory = x + depth * TILE, *above = memory + layer->units * TILE;
                NAME(product)(layer->weights, layer->rows, depth, x, made);
                NAME(gates)(layer->cell, layer->units, made, x, memory);
                if (n + 1 < layers)
                    memcpy(above + model->layer[n + 1].units * TILE, x, (size_t)(layer->units * TILE) * sizeof *x);
                else
                    rest = made + (layer->rows - signals) * TILE;
                x = above;
            }
            if (!layers) NAME(lay)(batch->foretold, places, signals, active, signals, foretold);
            /* the autoregression; then the newest row takes the place of the oldest */
            for (int64_t signal = 0; signal < signals; signal++)
                EACH(c) {
                    int64_t n = signal * TILE + c;
                    Vector sum = GET(rest + n);
                    for (int64_t lag = 0, place = oldest; lag < lags; lag++) {
                        sum = FMA(SET(model->linear[lag * signals + signal]), GET(history + place * wide + n), sum);
                        if (++place == lags) place = 0;
                    }
                    AT(foretold + n) = sum;
                }
            memcpy(history + oldest * wide, known, (size_t)wide * sizeof *known);

            if (step == 0 || youngest + step <= last_age + 1) {
                for (int64_t c = 0; c < TILE; c++) {
                    int64_t age = ages[c] + step;
                    beginning[c] = age ? 0.0f : NAN; /* before the second row nothing was foretold */
                    age = age < 1 ? 1 : age > last_age ? last_age : age;
                    total[c] = model->recent_total[age - 1];
                    power[c] = model->level_power[age - 1];
                }
            }
            Mask missing[TILE / WIDTH];
            for (int v = 0; v < TILE / WIDTH; v++) missing[v] = (Mask)SET(0.0f);
            for (int64_t signal = 0; signal < signals; signal++) {
                Vector unit = SET(model->spread[signal]);
                EACH(c) {
                    int64_t n = signal * TILE + c;
                    Vector innovation = GET(given + n) - GET(foretold + n) + GET(beginning + c);
                    Mask there = innovation == innovation;
                    missing[c / WIDTH] += there + 1; /* a mask is -1 where it holds */
                    Vector clipped = MOST(SET(-model->clip), LEAST(SET(model->clip), innovation * unit));
                    AT(z + n) = CHOOSE(there, clipped, SET(0.0f));
                    AT(share + n) = (Vector)there;
                }
            }
            NAME(product)(model->whitener, signals, signals, z, whitened);
            Vector plain = SET(weights[0]), white = SET(weights[3]);
            Vector into_recent = SET(model->recent * weights[1]), into_white = SET(model->recent * weights[4]);
            for (int64_t signal = 0; signal < signals; signal++)
                EACH(c) {
                    int64_t n = signal * TILE + c;
                    Vector own = GET(z + n), whole = GET(whitened + n);
                    Vector square = own * own, white_square = whole * whole;
                    Vector fresh = FMA(square, into_recent, white_square * into_white);
                    Vector mean = FMA(GET(recent + n), SET(model->recent_keep), fresh);
                    AT(recent + n) = mean;
                    AT(level + n) = FMA(GET(level + n), SET(model->level_keep), own * SET(model->level));
                    Vector sum = FMA(mean, GET(total + c), FMA(square, plain, white_square * white));
                    AT(z + n) = sum;
                }
            NAME(product)(model->whitener, signals, signals, level, whitened);
            double sums[TILE] = {0};
            Vector plain_level = SET(weights[2]), white_level = SET(weights[5]);
            for (int64_t signal = 0; signal < signals; signal++) {
                EACH(c) {
                    int64_t n = signal * TILE + c;
                    Vector own = GET(level + n), whole = GET(whitened + n);
                    Vector levels = FMA(own * own, plain_level, whole * whole * white_level);
                    Vector sum = FMA(levels, GET(power + c), GET(z + n));
                    AT(share + n) = CHOOSE((Mask)GET(share + n), sum, SET(0.0f));
                }
                for (int64_t c = 0; c < TILE; c++) sums[c] += (double)share[signal * TILE + c];
            }
            NAME(unlay)(foretold, signals, 0, active, places, signals, batch->expected);
            NAME(unlay)(share, signals, 0, active, COLUMNS, signals, flat);
            for (int64_t c = 0; c < active; c++) {
                int64_t unknown = ((const int32_t *)missing)[c];
                double sum = sums[c], part = sum > 0 ? 1 / sum : 0;
                batch->score[places[c]] =
                    unknown == signals ? NAN : sqrt(sum > 0 ? (sum + (double)unknown) / (double)signals : 0);
                double *contributions = batch->contributions + places[c] * signals;
                const float *own = flat + c * signals;
                for (int64_t signal = 0; signal < signals; signal++) contributions[signal] = (double)own[signal] * part;
            }

            int64_t ended = active; /* those that this was the last row of: keep what is remembered */
            while (active && counts[active - 1] == step + 1) active--;
            if (active == ended) continue;
            state = batch->states;
            x = fed;
            for (int64_t n = 0; n < layers; n++) {
                const Layer *layer = model->layer + n;
                NAME(unlay)(x, layer->units, active, ended, slots, layer->units, *state++);
                x += (layer->units + layer->inputs + 1) * TILE;
                if (layer->cell == LSTM) NAME(unlay)(x, layer->units, active, ended, slots, layer->units, *state++);
                x += layer->units * TILE;
            }
            for (int64_t lag = 0; lag < lags; lag++)
                NAME(unlay)(history + (step + 1 + lag) % lags * wide, signals, active, ended, slots, lags * signals,
                            batch->past + lag * signals);
            NAME(unlay)(recent, signals, active, ended, slots, 2 * signals, batch->means);
            NAME(unlay)(level, signals, active, ended, slots, 2 * signals, batch->means + signals);
            for (int64_t c = active; c < ended; c++)
                batch->seen[slots[c]] = (int32_t)((uint32_t)batch->seen[slots[c]] + (uint32_t)counts[c]);
        }
    }
}

#undef Vector
#undef Mask
#undef AT
#undef GET
#undef CHOOSE
#undef EACH
#undef TANH
#undef SIGMOID
#undef SUFFIX
#undef WIDTH
#undef ROWS
#undef VECTORS
#undef FMA
#undef LEAST
#undef MOST
#undef SET
#endif
