/* Rows of text from columns, in one pass: constants, one of some texts, whole numbers, times, and float64.
 *
 * Called from stream/sinks/text.py, which owns every array and has sized `out` for the longest that each column can be.
 * A float64 that is not finite is left out, with its key.
 *
 * Memory: keys and texts are copied BLOCK bytes at a time, so that there are as many behind the last key, behind the
 * last text and behind all of `out`, which are nobody's. A code that stands for no text ends it all.
 */
#include "decimal.h"

#define BLOCK 32

typedef struct {
    int64_t kind;
    const uint8_t *key; /* what stands before the column in each row that has it */
    int64_t key_length;
    int64_t comma; /* before the key: NEVER, ALWAYS, or UNLESS_FIRST behind an opening brace */
    const uint8_t *data;
    int64_t stride; /* bytes from row to row */
    const uint8_t *present; /* bool; NULL: in every row */
    int64_t present_stride;
    const uint8_t *texts; /* of a choice, end to end */
    const int64_t *ends;
    int64_t choices;
} Column;

enum { CONSTANT = 0, CHOICE = 1, WHOLE = 2, TIME = 3, EXACT = 4, SEVEN = 5 };
enum { NEVER = 0, ALWAYS = 1, UNLESS_FIRST = 2 };

static inline uint8_t *copy(uint8_t *out, const uint8_t *from, int64_t length) {
    for (int64_t at = 0; at < length; at += BLOCK) memcpy(out + at, from + at, BLOCK);
    return out + length;
}

/* Eight digits, a byte each, the first in the lowest: two halves, four quarters and eight eighths at a time (Khuong,
 * "How to print integers really fast", 2017). */
static inline uint64_t eight_bytes(uint32_t number) {
    uint64_t halves = number / 10000 | (uint64_t)(number % 10000) << 32;
    uint64_t upper = halves * 10486 >> 20 & 0x0000007F0000007F;
    uint64_t quarters = upper | (halves - 100 * upper) << 16;
    uint64_t tens = quarters * 103 >> 10 & 0x000F000F000F000F;
    return tens | (quarters - 10 * tens) << 8;
}

static inline void put_eight(uint8_t *out, uint64_t bytes) {
    bytes |= 0x3030303030303030;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    bytes = __builtin_bswap64(bytes);
#endif
    memcpy(out, &bytes, 8);
}

static inline void put_sixteen(uint8_t *out, unsigned __int128 bytes) {
    put_eight(out, (uint64_t)bytes);
    put_eight(out + 8, (uint64_t)(bytes >> 64));
}

static uint8_t *whole(uint8_t *out, int64_t number) {
    uint64_t size = number < 0 ? -(uint64_t)number : (uint64_t)number;
    uint8_t digits[24];
    put_eight(digits, eight_bytes((uint32_t)(size / 10000000000000000)));
    put_eight(digits + 8, eight_bytes((uint32_t)(size / 100000000 % 100000000)));
    put_eight(digits + 16, eight_bytes((uint32_t)(size % 100000000)));
    int first = 0;
    while (first < 23 && digits[first] == '0') first++;
    if (number < 0) *out++ = '-';
    memcpy(out, digits + first, (size_t)(24 - first));
    return out + 24 - first;
}

static inline uint8_t *two(uint8_t *out, int64_t number, uint8_t behind) {
    out[0] = (uint8_t)('0' + number / 10);
    out[1] = (uint8_t)('0' + number % 10);
    out[2] = behind;
    return out + 3;
}

/* 2026-11-23T08:00:00.250Z, of years from 1970 to 9999 (Hinnant, civil_from_days). */
static uint8_t *moment(uint8_t *out, int64_t at_ms) {
    int64_t second = at_ms / 1000, shifted = second / 86400 + 719468;
    int64_t era = shifted / 146097, of_era = shifted % 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t from_march = (5 * of_year + 2) / 153;
    int64_t day = of_year - (153 * from_march + 2) / 5 + 1, month = from_march < 10 ? from_march + 3 : from_march - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2);
    two(out, year / 100, 0);
    out = two(out + 2, year % 100, '-');
    out = two(out, month, '-');
    out = two(out, day, 'T');
    out = two(out, second / 3600 % 24, ':');
    out = two(out, second / 60 % 60, ':');
    out = two(out, second % 60, '.');
    *out = (uint8_t)('0' + at_ms / 100 % 10);
    return two(out + 1, at_ms % 100, 'Z');
}

/* `mantissa`, of 64 bits, times two to the power of `exponent` as so many digits, or as ten to the power of `digits`,
 * which is `most`; *power is the power of ten of the first. Off by at most 0.52 of the last: 64 bits of a power of ten
 * are used. */
static inline uint64_t decimal(const uint64_t *powers, uint64_t mantissa, int64_t exponent, int digits, uint64_t most,
                               int64_t *power) {
    *power = ((exponent + 63) * 1262611) >> 22; /* the logarithm of what is at most the number, and not a tenth of it */
    for (;;) {
        int64_t scale = digits - 1 - *power;
        uint64_t high = (uint64_t)(((unsigned __int128)mantissa * powers[2 * (scale - FIRST_POWER)]) >> 64);
        int64_t drop = -(exponent + ((217706 * scale) >> 16) + 1);
        uint64_t found = ((high >> (drop - 1)) + 1) >> 1;
        if (found <= most) return found;
        ++*power;
    }
}

/* Whether a reader makes `size` of these digits, of which there are at most sixteen, times ten to the power. */
static inline int reads_back(const uint64_t *powers, uint64_t digits, int64_t power, double size) {
    double read;
    if (digits <= 1ULL << 53 && power >= -22 && power <= 22)
        read = power < 0 ? (double)digits / TENS[-power] : (double)digits * TENS[power];
    else if (!scaled(powers, digits, power, &read))
        return 0;
    return read == size;
}

#define SEVENTEEN 10000000000000000ULL /* the least number of seventeen digits */

/* The digits of a number, at most seventeen, as 0.00712, 71.2, 71.0 or 7.12e-31: the first, the others as bytes, and how
 * many they are without the zeros at their end. */
static inline uint8_t *laid(uint8_t *out, uint8_t first, unsigned __int128 others, int64_t count, int64_t power) {
    first += '0';
    if (power >= 0 && power < 16) {
        out[0] = first;
        put_sixteen(out + 1, others);
        out[power + 1] = '.';
        put_sixteen(out + power + 2, others >> 8 * power);
        return out + (count > power ? count : power + 1) + 2;
    }
    if (power < 0 && power >= -5) {
        memcpy(out, "0.000000", 8);
        out[1 - power] = first;
        put_sixteen(out + 2 - power, others);
        return out + 2 - power + count;
    }
    out[0] = first;
    out[1] = '.';
    put_sixteen(out + 2, others);
    out += count ? count + 2 : 3;
    *out++ = 'e';
    return whole(out, power);
}

static inline int64_t without_zeros(uint64_t bytes) { return bytes ? 8 - __builtin_clzll(bytes) / 8 : 0; }

/* Seven digits, or ten millions. */
static inline uint8_t *seven(uint8_t *out, uint64_t number, int64_t power) {
    uint64_t bytes = eight_bytes((uint32_t)number);
    int more = (int)(bytes & 1);
    bytes >>= more ? 0 : 8;
    return laid(out, (uint8_t)bytes, bytes >> 8, without_zeros(bytes >> 8), power + more);
}

/* Seventeen digits, or ten times as much. */
static inline uint8_t *seventeen(uint8_t *out, uint64_t number, int64_t power) {
    if (number == 10 * SEVENTEEN) {
        number = SEVENTEEN;
        power++;
    }
    uint64_t first = number / SEVENTEEN, rest = number % SEVENTEEN;
    uint64_t high = eight_bytes((uint32_t)(rest / 100000000)), low = eight_bytes((uint32_t)(rest % 100000000));
    int64_t count = low ? 8 + without_zeros(low) : without_zeros(high);
    return laid(out, (uint8_t)first, (unsigned __int128)low << 64 | high, count, power);
}

/* Exact: fifteen, sixteen or seventeen digits, the first that are read back the same, and seventeen always are: they
 * are off by less than half of what lies between two float64. */
static inline uint8_t *number(const uint64_t *powers, uint8_t *out, uint64_t bits, int exact) {
    uint64_t mantissa = bits & ((1ULL << 52) - 1);
    int64_t exponent = (int64_t)(bits >> 52 & 0x7FF);
    if (bits >> 63) *out++ = '-';
    if (!exponent && !mantissa) {
        memcpy(out, "0.0", 3);
        return out + 3;
    }
    if (exponent)
        mantissa |= 1ULL << 52;
    else
        exponent = 1;
    int zeros = __builtin_clzll(mantissa);
    mantissa <<= zeros;
    exponent -= 1075 + zeros;
    int64_t power;
    uint64_t found;
    if (!exact) {
        found = decimal(powers, mantissa, exponent, 7, 10000000, &power);
        return seven(out, found, power);
    }
    found = decimal(powers, mantissa, exponent, 17, 10 * SEVENTEEN, &power);
    double size;
    bits &= ~(1ULL << 63);
    memcpy(&size, &bits, 8);
    uint64_t shorter = (found + 50) / 100;
    if (reads_back(powers, shorter, power - 14, size)) return seventeen(out, shorter * 100, power);
    shorter = (found + 5) / 10;
    if (reads_back(powers, shorter, power - 15, size)) return seventeen(out, shorter * 10, power);
    return seventeen(out, found, power);
}

/* What this file and stream/sinks/text.py must agree on. */
int64_t headrace_text_version(void) { return 1; }

/* Rows with a line feed between them; how many bytes, or -1 where a code stands for no text. */
int64_t headrace_text(const Column *columns, int64_t count, int64_t rows, const uint64_t *powers, uint8_t *const begin) {
    uint8_t *out = begin;
    for (int64_t row = 0; row < rows; row++) {
        if (row) *out++ = '\n';
        for (const Column *column = columns; column < columns + count; column++) {
            const uint8_t *data = column->data + row * column->stride;
            int64_t held = 0;
            if (column->kind == CHOICE) {
                int32_t code;
                memcpy(&code, data, 4);
                if (code < 0 || code >= column->choices) return -1;
                int64_t from = code ? column->ends[code - 1] : 0;
                out = copy(out, column->texts + from, column->ends[code] - from);
                continue;
            }
            if (column->kind != CONSTANT) memcpy(&held, data, 8);
            if (column->kind >= EXACT) {
                if ((~held & 0x7FF0000000000000) == 0) continue;
                if (column->present && !column->present[row * column->present_stride]) continue;
            }
            if (column->comma == ALWAYS || (column->comma && out > begin && out[-1] != '{')) *out++ = ',';
            out = copy(out, column->key, column->key_length);
            if (column->kind == WHOLE)
                out = whole(out, held);
            else if (column->kind == TIME)
                out = moment(out, held);
            else if (column->kind >= EXACT)
                out = number(powers, out, (uint64_t)held, column->kind == EXACT);
        }
    }
    return out - begin;
}
