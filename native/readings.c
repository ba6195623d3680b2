/* Plain JSON readings and frames, and packed frames, to columns, in one pass over their bytes.
 *
 * Called from stream/columnar.py, which owns every array. A record is taken only where what stream/sources/json.py,
 * frame.py and packed.py would make of it is beyond doubt; any other (an escape, a name that needs more than ASCII, a bad quality, a
 * time in a rare form, an error) is left to them, whole. So nothing here reports an error, and nothing here is guessed.
 *
 * Memory: the records lie end to end and PAD zero bytes behind the last, which no loop passes: they all stop at a byte
 * that is not theirs. A record that is cut off may be read on into the next one, but is then not at its end where it
 * should be, and is left. Rows are written only below `room`, names only below `names_room` and `arena_room`.
 */
#include "decimal.h"

#include <math.h>
#include <stddef.h>

#define PAD 32
#define AHEAD 4        /* records between asking memory for a name and reading it, twice */
#define IN_CACHE 4096  /* names that the nearest caches hold: 64 bytes each with their slot and letters */
#define MOST_OTHERS 16 /* keys of a record that no detector watches; more are left to Python */

/* A name that was seen: 32 bytes, so that looking at it is one look into memory. */
typedef struct {
    uint64_t hash;
    int64_t begin; /* in the arena */
    int32_t length;
    uint32_t last_batch; /* in which it was seen, and its code there */
    int32_t code;
    int32_t unused;
} Name;

typedef struct {
    /* what is asked for: signals as UTF-8 with eight bytes behind each */
    const uint8_t *signals;
    const int32_t *signal_begins;
    const int32_t *signal_lengths;
    int64_t width;
    int64_t earliest_ms, latest_ms, unit_ms;
    int64_t max_rows, max_name;
    int64_t kinds; /* of records that are taken, added up: SINGLE, FRAME, PACKED */
    const uint64_t *powers; /* five to the power of FIRST_POWER and up, 128 bits each, the high half first */
    /* the names of assets that were ever seen: open addressing over `slots`, which holds numbers from 1 */
    int32_t *slots;
    int64_t slots_mask;
    uint64_t seed; /* of the hash, so that nobody can choose names that collide */
    Name *names;
    uint8_t *arena;
    int64_t known, names_room, arena_used, arena_room;
    int64_t batch;
    int32_t *present; /* by code: the number of the name */
    int64_t present_count;
    /* what came of it */
    int64_t *at_ms;
    double *values; /* (row, width) */
    int32_t *codes;
    int32_t *records;
    int64_t rows, room;
    int32_t *left; /* records that were not taken */
    int64_t left_count;
    int64_t unknown; /* values that no detector watches */
    uint32_t *column_seen; /* by column: the stamp of the record that last had it */
    int64_t stamp;
} Work;

enum { LEFT = 0, TAKEN = 1, NO_ROOM = 2 };
enum { SINGLE = 1, FRAME = 2, PACKED = 4 };

static inline int is_digit(uint8_t byte) { return (uint8_t)(byte - '0') < 10; }

static inline const uint8_t *skip(const uint8_t *p) {
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') p++;
    return p;
}

static inline uint64_t eight(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static inline int same(const uint8_t *p, const uint8_t *name, int64_t length) {
    for (; length >= 8; length -= 8, p += 8, name += 8)
        if (eight(p) != eight(name)) return 0;
    for (; length > 0; length--)
        if (*p++ != *name++) return 0;
    return 1;
}

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
/* Eight digits at once, and whether they are digits: from the same paper. */
static inline int eight_are_digits(uint64_t word) {
    return (((word & 0xF0F0F0F0F0F0F0F0) | (((word + 0x0606060606060606) & 0xF0F0F0F0F0F0F0F0) >> 4)) ==
            0x3333333333333333);
}

static inline uint32_t eight_digits(uint64_t word) {
    word -= 0x3030303030303030;
    word = word * 10 + (word >> 8);
    return (uint32_t)((((word & 0x000000FF000000FF) * 0x000F424000000064) +
                       (((word >> 16) & 0x000000FF000000FF) * 0x0000271000000001)) >> 32);
}
#define EIGHT_AT_ONCE 1
#else
#define EIGHT_AT_ONCE 0
#endif

typedef struct {
    uint64_t digits;
    int64_t power; /* of ten */
    int negative, whole;
} Number;

/* A number of JSON with at most nineteen digits; its end, or NULL. */
static inline const uint8_t *number(const uint8_t *p, Number *out) {
    out->negative = *p == '-';
    p += out->negative;
    const uint8_t *begin = p;
    uint64_t digits = 0;
    if (*p == '0') {
        p++;
        if (is_digit(*p)) return NULL;
    } else {
        if (!is_digit(*p)) return NULL;
        while (is_digit(*p)) digits = digits * 10 + (uint64_t)(*p++ - '0');
    }
    int64_t count = p - begin, power = 0;
    out->whole = 1;
    if (*p == '.') {
        const uint8_t *first = ++p;
        if (EIGHT_AT_ONCE)
            for (uint64_t word; eight_are_digits(word = eight(p)); p += 8) digits = digits * 100000000 + eight_digits(word);
        while (is_digit(*p)) digits = digits * 10 + (uint64_t)(*p++ - '0');
        power = first - p;
        if (!power) return NULL;
        count -= power;
        out->whole = 0;
        if (count > 19) /* zeros in front do not count */
            for (const uint8_t *zero = begin; zero < p && (*zero == '0' || *zero == '.'); zero++) count -= *zero == '0';
    }
    if (count > 19) return NULL;
    if (*p == 'e' || *p == 'E') {
        p++;
        int down = *p == '-';
        p += *p == '-' || *p == '+';
        if (!is_digit(*p)) return NULL;
        int64_t shift = 0;
        while (is_digit(*p)) {
            if (shift > 9999) return NULL;
            shift = shift * 10 + (*p++ - '0');
        }
        power += down ? -shift : shift;
        out->whole = 0;
    }
    out->digits = digits;
    out->power = power;
    return p;
}

static inline int valued(const Work *work, const Number *from, double *out) {
    double size;
    if (!from->digits)
        size = 0.0;
    else if (from->digits <= 1ULL << 53 && from->power >= -22 && from->power <= 22) /* both exact: rounded once */
        size = from->power < 0 ? (double)from->digits / TENS[-from->power] : (double)from->digits * TENS[from->power];
    else if (!scaled(work->powers, from->digits, from->power, &size))
        return 0;
    *out = from->negative ? -size : size;
    return 1;
}

/* A number or null, which becomes NaN; its end, or NULL. */
static inline const uint8_t *value(const Work *work, const uint8_t *p, double *out) {
    if (*p == 'n') {
        if (p[1] != 'u' || p[2] != 'l' || p[3] != 'l') return NULL;
        *out = NAN;
        return p + 4;
    }
    Number held;
    p = number(p, &held);
    return p && valued(work, &held, out) ? p : NULL;
}

/* Behind the closing quote of a string that begins at p, behind its opening one; NULL where it is not plain ASCII. */
static inline const uint8_t *plain(const uint8_t *p) {
    while (*p != '"') {
        if (*p < 0x20 || *p > 0x7E || *p == '\\') return NULL;
        p++;
    }
    return p + 1;
}

static inline int two(const uint8_t *p, int most) {
    if (!is_digit(p[0]) || !is_digit(p[1])) return -1;
    int both = (p[0] - '0') * 10 + p[1] - '0';
    return both <= most ? both : -1;
}

/* Days since 1970 of a date of the Gregorian calendar (Hinnant, days_from_civil), whose year is above 0. */
static int64_t days(int64_t year, int64_t month, int64_t day) {
    year -= month <= 2;
    int64_t era = year / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int days_of(int year, int month) {
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return lengths[month - 1] + (month == 2 && year % 4 == 0 && (year % 100 || year % 400 == 0));
}

/* The most common forms of RFC 3339, behind the opening quote: up to six decimals, Z or an offset. */
static const uint8_t *text_time(const uint8_t *p, int64_t *out) {
    int century = two(p, 99);
    if (century < 0) return NULL;
    int of_century = two(p + 2, 99);
    if (of_century < 0 || p[4] != '-') return NULL;
    int month = two(p + 5, 12);
    if (month < 1 || p[7] != '-') return NULL;
    int year = century * 100 + of_century, day = two(p + 8, 31);
    if (year < 2 || year > 9998 || day < 1 || day > days_of(year, month) || p[10] != 'T') return NULL;
    int hour = two(p + 11, 23);
    if (hour < 0 || p[13] != ':') return NULL;
    int minute = two(p + 14, 59);
    if (minute < 0 || p[16] != ':') return NULL;
    int second = two(p + 17, 59);
    if (second < 0) return NULL;
    p += 19;
    int64_t thousandths = 0;
    if (*p == '.') {
        int count = 0;
        for (p++; is_digit(*p); p++, count++)
            if (count < 3) thousandths = thousandths * 10 + *p - '0';
        if (count < 1 || count > 6) return NULL;
        for (; count < 3; count++) thousandths *= 10;
    }
    int64_t offset = 0;
    if (*p == 'Z')
        p++;
    else if (*p == '+' || *p == '-') {
        int east = *p == '+', hours = two(p + 1, 23);
        if (hours < 0 || p[3] != ':') return NULL;
        int minutes = two(p + 4, 59);
        if (minutes < 0) return NULL;
        offset = (east ? 1 : -1) * (hours * 60 + minutes);
        p += 6;
    } else
        return NULL;
    if (*p != '"') return NULL;
    *out = (((days(year, month, day) * 24 + hour) * 60 + minute - offset) * 60 + second) * 1000 + thousandths;
    return p + 1;
}

static inline const uint8_t *moment(const Work *work, const uint8_t *p, int64_t *out) {
    int64_t at;
    if (*p == '"') {
        p = text_time(p + 1, &at);
        if (!p) return NULL;
    } else {
        Number held;
        double size;
        p = number(p, &held);
        if (!p) return NULL;
        if (held.whole) {
            if (held.digits > 999999999999999) return NULL;
            at = (held.negative ? -(int64_t)held.digits : (int64_t)held.digits) * work->unit_ms;
        } else { /* to microseconds first: 1795420800.001 s is a little less than that, and must not become .000 */
            if (!valued(work, &held, &size)) return NULL;
            double microseconds = size * (double)(work->unit_ms * 1000);
            if (!(fabs(microseconds) < 9007199254740992.0)) return NULL;
            int64_t rounded = (int64_t)rint(microseconds);
            at = rounded / 1000 - (rounded % 1000 < 0);
        }
    }
    if (at < work->earliest_ms || at > work->latest_ms) return NULL;
    *out = at;
    return p;
}

typedef struct {
    const uint8_t *asset;
    int64_t asset_length, asset_number; /* -1: not known yet */
    uint64_t asset_hash;
    int64_t rows, watched, unknown;
    int framed, timed, valued, judged, others;
    const uint8_t *other[MOST_OTHERS];
    int64_t other_length[MOST_OTHERS];
} Found;

static inline uint64_t hashed(uint64_t hash, uint8_t byte) { return (hash ^ byte) * 1099511628211ULL; }
static inline uint64_t finished(uint64_t hash) { return hash ^ hash >> 32; }

/* Ask for what is known of the name that a record begins with, before its turn comes: among a hundred thousand it is in
 * no cache. `far` records ahead for its slot, then for what the slot says. */
static inline void fetch(const Work *work, const uint8_t *p, int far) {
    static const char begin[] = "{\"asset\":\"";
    if (memcmp(p, begin, sizeof begin - 1)) return;
    uint64_t hash = work->seed;
    for (p += sizeof begin - 1; *p >= 0x20 && *p != '"'; p++) hash = hashed(hash, *p);
    const int32_t *slot = &work->slots[finished(hash) & (uint64_t)work->slots_mask];
    if (far)
        __builtin_prefetch(slot);
    else if (*slot)
        __builtin_prefetch(&work->names[*slot - 1], 1);
}

/* The asset is the one of this name, which is plain; 0 where it cannot be. */
static int known(const Work *work, const uint8_t *begin, int64_t length, uint64_t hash, Found *found) {
    if (found->asset || !length || length > work->max_name) return 0;
    found->asset = begin;
    found->asset_length = length;
    found->asset_hash = hash = finished(hash);
    found->asset_number = -1;
    for (uint64_t slot = hash & (uint64_t)work->slots_mask; work->slots[slot]; slot = (slot + 1) & (uint64_t)work->slots_mask) {
        int64_t candidate = work->slots[slot] - 1;
        const Name *name = &work->names[candidate];
        if (name->hash == hash && name->length == length && same(begin, work->arena + name->begin, length)) {
            found->asset_number = candidate;
            break;
        }
    }
    return 1;
}

/* The asset's name, behind the opening quote. */
static const uint8_t *asset(const Work *work, const uint8_t *p, Found *found) {
    const uint8_t *begin = p;
    uint64_t hash = work->seed;
    for (; *p != '"'; p++) {
        if (*p < 0x20 || *p > 0x7E || *p == '\\') return NULL; /* whether others are printable, Python has to say */
        hash = hashed(hash, *p);
    }
    return known(work, begin, p - begin, hash, found) ? p + 1 : NULL;
}

/* Note a signal that no detector watches; 0 if it comes twice, or there are too many. */
static int another(const uint8_t *p, int64_t length, Found *found) {
    if (found->others == MOST_OTHERS) return 0;
    for (int other = 0; other < found->others; other++)
        if (found->other_length[other] == length && same(p, found->other[other], length)) return 0;
    found->other[found->others] = p;
    found->other_length[found->others++] = length;
    return 1;
}

/* Behind a colon and what may stand around it, or NULL. */
static inline const uint8_t *colon(const uint8_t *p) {
    p = skip(p);
    return *p == ':' ? skip(p + 1) : NULL;
}

/* The column of the signal whose name begins here, with its opening quote; -1 if no detector watches it. Where its value
 * begins, or NULL. */
static inline const uint8_t *signal(Work *work, const uint8_t *p, int64_t *next, int64_t *column, Found *found) {
    if (*p++ != '"') return NULL;
    for (int64_t tried = 0, at = *next; tried < work->width; tried++, at++) {
        if (at >= work->width) at = 0;
        int64_t length = work->signal_lengths[at];
        if (same(p, work->signals + work->signal_begins[at], length) && p[length] == '"') {
            *column = at;
            *next = at + 1;
            return colon(p + length + 1);
        }
    }
    const uint8_t *end = plain(p);
    *column = -1;
    return end && another(p, end - 1 - p, found) ? colon(end) : NULL;
}

/* {"temperature": 71.2, ...}, behind the brace, into the row at work->rows. */
static const uint8_t *row(Work *work, const uint8_t *p, Found *found) {
    double *into = work->values + work->rows * work->width;
    for (int64_t at = 0; at < work->width; at++) into[at] = NAN;
    int64_t next = 0, column, filled = 0;
    double held;
    p = skip(p);
    if (*p == '}') return NULL;
    for (;;) {
        p = signal(work, p, &next, &column, found);
        p = p ? value(work, p, &held) : NULL;
        if (!p) return NULL;
        if (column >= 0) {
            into[column] = held;
            filled |= held == held;
        } else
            found->unknown += held == held;
        p = skip(p);
        if (*p == '}') break;
        if (*p++ != ',') return NULL;
        p = skip(p);
    }
    if (filled) { /* the last of a name that comes twice is what counts */
        filled = 0;
        for (int64_t at = 0; at < work->width; at++) filled |= into[at] == into[at];
    }
    found->watched = filled;
    return p + 1;
}

/* {"temperature": [71.2, ...], ...}, behind the brace, into the rows from work->rows. */
static const uint8_t *columns(Work *work, const uint8_t *p, Found *found) {
    double *into = work->values + work->rows * work->width;
    int64_t next = 0, column, width = work->width;
    double held;
    uint32_t stamp = (uint32_t)++work->stamp;
    p = skip(p);
    if (*p == '}') return NULL;
    for (;;) {
        p = signal(work, p, &next, &column, found);
        if (!p || *p++ != '[') return NULL;
        if (column >= 0) {
            found->watched += work->column_seen[column] != stamp;
            work->column_seen[column] = stamp;
        }
        for (int64_t at = 0; at < found->rows; at++) {
            p = value(work, skip(p), &held);
            if (!p) return NULL;
            if (column >= 0)
                into[at * width + column] = held;
            else
                found->unknown += held == held;
            p = skip(p);
            if (*p++ != (at + 1 < found->rows ? ',' : ']')) return NULL;
        }
        p = skip(p);
        if (*p == '}') break;
        if (*p++ != ',') return NULL;
        p = skip(p);
    }
    if (found->watched < width)
        for (column = 0; column < width; column++)
            if (work->column_seen[column] != stamp)
                for (int64_t at = 0; at < found->rows; at++) into[at * width + column] = NAN;
    return p + 1;
}

/* [1795420800250, ...], behind the bracket, to work->at_ms from work->rows; NO_ROOM in *status where there is none. */
static const uint8_t *moments(Work *work, const uint8_t *p, Found *found, int *status) {
    for (int64_t rows = 0;;) {
        if (rows == work->max_rows) return NULL;
        if (work->rows + rows == work->room) {
            *status = NO_ROOM;
            return NULL;
        }
        p = moment(work, skip(p), &work->at_ms[work->rows + rows]);
        if (!p) return NULL;
        rows++;
        p = skip(p);
        if (*p == ']') {
            found->rows = rows;
            return p + 1;
        }
        if (*p++ != ',') return NULL;
    }
}

/* A value that does not matter: a plain text, a number, true, false or null. */
static const uint8_t *ignored(const uint8_t *p) {
    Number held;
    if (*p == '"') return plain(p + 1);
    if (!memcmp(p, "true", 4) || !memcmp(p, "null", 4)) return p + 4;
    if (!memcmp(p, "false", 5)) return p + 5;
    return number(p, &held);
}

/* {"temperature": "good", ...}, behind the brace: nothing that makes a value of `row` a missing one. */
static const uint8_t *qualities(const uint8_t *p) {
    p = skip(p);
    if (*p == '}') return p + 1;
    for (;;) {
        if (*p++ != '"') return NULL;
        p = plain(p);
        p = p ? colon(p) : NULL;
        if (!p) return NULL;
        if (!memcmp(p, "\"good\"", 6))
            p += 6;
        else if (!memcmp(p, "\"uncertain\"", 11))
            p += 11;
        else
            return NULL;
        p = skip(p);
        if (*p == '}') return p + 1;
        if (*p++ != ',') return NULL;
        p = skip(p);
    }
}

/* A length of MessagePack behind its first byte, in `bytes` bytes with the highest first; -1 beyond the end. */
static inline int64_t length_of(const uint8_t **p, const uint8_t *end, int bytes) {
    if (end - *p < bytes) return -1;
    int64_t length = 0;
    for (int at = 0; at < bytes; at++) length = length << 8 | *(*p)++;
    return length;
}

/* What a string of MessagePack holds, `*p` being moved behind it; its length, or -1. */
static int64_t string(const uint8_t **p, const uint8_t *end, const uint8_t **begin) {
    if (*p >= end) return -1;
    uint8_t first = *(*p)++;
    int64_t length = (first & 0xE0) == 0xA0 ? first & 0x1F : first == 0xD9 ? length_of(p, end, 1) : -1;
    if (length < 0 || end - *p < length) return -1;
    *begin = *p;
    *p += length;
    return length;
}

/* The same of bytes. */
static int64_t binary(const uint8_t **p, const uint8_t *end, const uint8_t **begin) {
    if (*p >= end) return -1;
    uint8_t first = *(*p)++;
    int64_t length = first >= 0xC4 && first <= 0xC6 ? length_of(p, end, 1 << (first - 0xC4)) : -1;
    if (length < 0 || end - *p < length) return -1;
    *begin = *p;
    *p += length;
    return length;
}

static int key(const uint8_t **p, const uint8_t *end, const char *name) {
    const uint8_t *begin;
    int64_t length = string(p, end, &begin);
    return length == (int64_t)strlen(name) && !memcmp(begin, name, (size_t)length);
}

static int all_plain(const uint8_t *p, int64_t length) {
    for (int64_t at = 0; at < length; at++)
        if (p[at] < 0x20 || p[at] > 0x7E) return 0;
    return 1;
}

/* A packed frame (stream/sources/packed.py), its fields in the order in which they are written; as `record`. */
static int packed(Work *work, const uint8_t *p, const uint8_t *end, Found *found) {
    const uint8_t *name, *times, *columns, *signals;
    if (!EIGHT_AT_ONCE || *p++ != 0x84) return LEFT; /* numbers are little-endian */
    if (!key(&p, end, "asset")) return LEFT;
    int64_t length = string(&p, end, &name);
    if (length < 0 || !all_plain(name, length)) return LEFT;
    uint64_t hash = work->seed;
    for (int64_t at = 0; at < length; at++) hash = hashed(hash, name[at]);
    if (!known(work, name, length, hash, found)) return LEFT;
    if (!key(&p, end, "ts")) return LEFT;
    int64_t bytes = binary(&p, end, &times), rows = bytes / 8;
    if (rows < 1 || bytes % 8 || rows > work->max_rows) return LEFT;
    if (work->rows + rows > work->room) return NO_ROOM;
    if (!key(&p, end, "signals") || p >= end || (*p & 0xF0) != 0x90) return LEFT;
    int64_t count = *p++ & 0x0F;
    signals = p;
    for (int64_t at = 0; at < count; at++)
        if (string(&p, end, &name) < 0) return LEFT;
    if (!count || !key(&p, end, "values") || binary(&p, end, &columns) != bytes * count || p != end) return LEFT;
    int64_t *at_ms = work->at_ms + work->rows;
    memcpy(at_ms, times, (size_t)bytes);
    for (int64_t at = 0; at < rows; at++)
        if (at_ms[at] < work->earliest_ms || at_ms[at] > work->latest_ms) return LEFT;
    double *into = work->values + work->rows * work->width;
    uint32_t stamp = (uint32_t)++work->stamp;
    int64_t next = 0;
    for (int64_t at = 0; at < count; at++, columns += bytes) {
        int64_t column = -1;
        length = string(&signals, end, &name);
        for (int64_t tried = 0; tried < work->width && column < 0; tried++, next++) {
            if (next >= work->width) next = 0;
            if (work->signal_lengths[next] == length && same(name, work->signals + work->signal_begins[next], length))
                column = next;
        }
        if (column < 0 ? !all_plain(name, length) || !another(name, length, found) : work->column_seen[column] == stamp)
            return LEFT;
        if (column >= 0) {
            work->column_seen[column] = stamp;
            found->watched++;
        }
        for (int64_t row = 0; row < rows; row++) {
            double held;
            memcpy(&held, columns + row * 8, 8);
            if (column >= 0)
                into[row * work->width + column] = isfinite(held) ? held : NAN;
            else
                found->unknown += held == held;
        }
    }
    if (!found->watched) return LEFT;
    if (found->watched < work->width)
        for (int64_t column = 0; column < work->width; column++)
            if (work->column_seen[column] != stamp)
                for (int64_t row = 0; row < rows; row++) into[row * work->width + column] = NAN;
    found->rows = rows;
    return TAKEN;
}

/* One record into the rows from work->rows; they count once it returns TAKEN. */
static int record(Work *work, const uint8_t *p, const uint8_t *end, Found *found) {
    int status = LEFT;
    if (end - p < 2) return LEFT;
    if (*p & 0x80) return work->kinds & PACKED ? packed(work, p, end, found) : LEFT;
    p = skip(p);
    if (*p++ != '{') return LEFT;
    for (;;) {
        p = skip(p);
        if (*p++ != '"') return LEFT;
        const uint8_t *key = p;
        p = plain(p);
        if (!p) return LEFT;
        int64_t length = p - 1 - key;
        p = colon(p);
        if (!p) return LEFT;
        if (length == 5 && !memcmp(key, "asset", 5)) {
            if (*p++ != '"') return LEFT;
            p = asset(work, p, found);
        } else if (length == 2 && !memcmp(key, "ts", 2)) {
            if (found->timed++) return LEFT;
            if (*p == '[') {
                if (found->valued) return LEFT;
                found->framed = 1;
                p = moments(work, p + 1, found, &status);
            } else {
                found->rows = 1;
                p = moment(work, p, &work->at_ms[work->rows]);
            }
        } else if (length == 6 && !memcmp(key, "values", 6)) {
            if (found->valued++ || *p++ != '{') return LEFT;
            p = found->framed ? columns(work, p, found) : row(work, p, found);
        } else if (length == 7 && !memcmp(key, "quality", 7)) {
            found->judged = 1;
            if (*p++ != '{') return LEFT;
            p = qualities(p);
        } else
            p = ignored(p);
        if (!p) return status;
        p = skip(p);
        if (*p == '}') break;
        if (*p++ != ',') return LEFT;
    }
    if (!found->asset || !found->timed || !found->valued || !found->watched || p >= end) return LEFT;
    if (found->framed && found->judged) return LEFT; /* there a quality is an array */
    if (!(work->kinds & (found->framed ? FRAME : SINGLE))) return LEFT;
    for (p++; p < end; p++)
        if (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t') return LEFT;
    return p == end ? TAKEN : LEFT;
}

static void enter(Work *work, int64_t number) {
    uint64_t slot = work->names[number].hash & (uint64_t)work->slots_mask;
    while (work->slots[slot]) slot = (slot + 1) & (uint64_t)work->slots_mask;
    work->slots[slot] = (int32_t)number + 1;
}

/* Remember a name; its number, or -1 where there is no room. */
static int64_t remember(Work *work, const Found *found) {
    if (work->known == work->names_room || work->arena_used + found->asset_length > work->arena_room) return -1;
    memcpy(work->arena + work->arena_used, found->asset, (size_t)found->asset_length);
    work->names[work->known] = (Name){found->asset_hash, work->arena_used, (int32_t)found->asset_length, 0, 0, 0};
    work->arena_used += found->asset_length;
    enter(work, work->known);
    return work->known++;
}

/* Fill `slots`, which are empty, with the names that are known. */
void headrace_readings_names(Work *work) {
    for (int64_t number = 0; number < work->known; number++) enter(work, number);
}

/* What this file and stream/columnar.py must agree on. */
int64_t headrace_readings_version(void) { return 3; }

/* Take records `first` to `count`, whose ends are `ends`; returns the first that is still to do: there is no room for
 * it, in the rows or among the names. */
int64_t headrace_readings(Work *work, const uint8_t *bytes, const int64_t *ends, int64_t first, int64_t count) {
    for (int64_t at = first; at < count; at++) {
        if (work->rows == work->room) return at;
        if (work->known > IN_CACHE) {
            if (at + 2 * AHEAD < count) fetch(work, bytes + ends[at + 2 * AHEAD - 1], 1);
            if (at + AHEAD < count) fetch(work, bytes + ends[at + AHEAD - 1], 0);
        }
        Found found;
        memset(&found, 0, offsetof(Found, other));
        int status = record(work, bytes + (at ? ends[at - 1] : 0), bytes + ends[at], &found);
        if (status == NO_ROOM) return at;
        if (status == LEFT) {
            work->left[work->left_count++] = (int32_t)at;
            continue;
        }
        int64_t name = found.asset_number < 0 ? remember(work, &found) : found.asset_number;
        if (name < 0) return at;
        Name *seen = &work->names[name];
        if (seen->last_batch != (uint32_t)work->batch) {
            seen->last_batch = (uint32_t)work->batch;
            seen->code = (int32_t)work->present_count;
            work->present[work->present_count++] = (int32_t)name;
        }
        for (int64_t row = work->rows; row < work->rows + found.rows; row++) {
            work->codes[row] = seen->code;
            work->records[row] = (int32_t)at;
        }
        work->rows += found.rows;
        work->unknown += found.unknown;
    }
    return count;
}
