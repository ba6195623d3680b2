/* Decimal numbers and float64, by powers of five of 128 bits, which Python works out (stream/powers.py). */
#ifndef HEADRACE_DECIMAL_H
#define HEADRACE_DECIMAL_H

#include <stdint.h>
#include <string.h>

static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define FIRST_POWER (-342)
#define LAST_POWER 308

/* Correctly rounded `digits` times ten to the power of `power`, where that is a normal number and 128 bits of the power
 * are enough; 0 otherwise. `digits` is not 0. Lemire, "Number parsing at a gigabyte per second" (2021), as in fast_float. */
static int scaled(const uint64_t *powers, uint64_t digits, int64_t power, double *out) {
    if (power < FIRST_POWER || power > LAST_POWER) return 0;
    const uint64_t *five = powers + 2 * (power - FIRST_POWER);
    int zeros = __builtin_clzll(digits);
    uint64_t whole = digits << zeros;
    unsigned __int128 product = (unsigned __int128)whole * five[0];
    uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
    if ((high & 0x1FF) == 0x1FF) {
        uint64_t more = (uint64_t)(((unsigned __int128)whole * five[1]) >> 64);
        low += more;
        if (low < more) high++;
    }
    if (low == UINT64_MAX && (power < -27 || power > 55)) return 0;
    int upper = (int)(high >> 63);
    int drop = upper + 64 - 52 - 3;
    uint64_t mantissa = high >> drop;
    int64_t exponent = (((152170 + 65536) * power) >> 16) + 63 + upper - zeros + 1023;
    if (exponent <= 0) return 0;
    if (low <= 1 && power >= -4 && power <= 23 && (mantissa & 3) == 1 && (mantissa << drop) == high) mantissa &= ~1ULL;
    mantissa += mantissa & 1;
    mantissa >>= 1;
    if (mantissa >= 2ULL << 52) {
        mantissa = 1ULL << 52;
        exponent++;
    }
    if (exponent >= 0x7FF) return 0;
    uint64_t bits = (mantissa & ~(1ULL << 52)) | (uint64_t)exponent << 52;
    memcpy(out, &bits, 8);
    return 1;
}

#endif
