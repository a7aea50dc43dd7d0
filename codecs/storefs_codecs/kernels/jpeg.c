/* Grey images of 8 bits in sequential JPEG (ITU-T T.81), with the samples that libjpeg-turbo gives, to the bit.

   Only streams without any irregularity are decoded; of all others the caller is told that they are DECLINED, and
   what is in `out` then is of no use. Colour images are decoded where their chroma is nil: red, green and blue are
   then the luma.

   Memory-safe for every input: nothing outside the payload is read, nothing outside the rows of the image is written,
   and time is bounded by the size of the payload. Nothing here keeps state or allocates, so any number of threads may
   call at once. */

#include "labels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !(defined(_WIN32) && !defined(__clang__)) /* gcc misaligns there */
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,bmi,bmi2")))
#endif

enum { INTERFACE = 1 }; /* raise with every change of a signature below */
enum { DECLINED = 1, NEEDS_CONTIGUOUS };
enum { WHERE_FASTER, VECTORS, PLAIN }; /* the others are for tests: images of any size, with AVX2 or without */

enum {
    LOOK = 11,            /* bits that are looked up at once */
    BATCH = 8,            /* blocks decoded at once; their rows are a cache line */
    MOST = BATCH * 256,   /* bytes that a batch can take: 64 symbols a block, each of at most 31 bits */
    SLACK = MOST + 32,    /* so that bits need not be counted within a batch */
    WINDOW = 4 * MOST,
    LONGEST_SIDE = 65500, /* as libjpeg-turbo has it */
    FEW_SAMPLES = 8192,   /* of fewer libjpeg-turbo makes more than it takes to make tables */
    COLOUR_HEAD = 1000    /* bytes; a longer one may hold as many seeming scans as the codecs refuse */
};

/* ---- what stands before the entropy-coded bytes ---- */

typedef struct {
    const uint8_t *quantisers[4], *codes[2][4]; /* within the payload: 64 steps; 16 counts and the symbols */
    const uint8_t *frame, *scan, *data;
    int components, jfif, adobe, profiles;
} Head;

enum { NO_ADOBE = -1, ODD_ADOBE = 256 };

INLINE unsigned load16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }

static int read_quantisers(Head *head, const uint8_t *at, unsigned size) {
    for (; size; at += 65, size -= 65) {
        if (size < 65 || at[0] > 3) return DECLINED;
        head->quantisers[at[0]] = at + 1;
    }
    return 0;
}

static int read_codes(Head *head, const uint8_t *at, unsigned size) {
    while (size) {
        if (size < 17 || at[0] > 0x1f || (at[0] & 15) > 3) return DECLINED;
        unsigned symbols = 0;
        for (int length = 1; length <= 16; length++) symbols += at[length];
        if (symbols > 256 || symbols > size - 17) return DECLINED;
        head->codes[at[0] >> 4][at[0] & 15] = at + 1;
        at += 17 + symbols, size -= 17 + symbols;
    }
    return 0;
}

static int read_application(Head *head, int marker, const uint8_t *at, unsigned size) {
    if (marker == 0xe0 && size >= 14 && !memcmp(at, "JFIF", 5)) {
        head->jfif = 1;
        return at[5] == 1 ? 0 : DECLINED;
    }
    if (marker == 0xe2 && size >= 14 && !memcmp(at, "ICC_PROFILE", 12)) /* numbered from 1; libjpeg-turbo looks */
        return head->profiles++ || at[12] != 1 || at[13] != 1 || size == 14;
    if (marker == 0xee) {
        int one = size >= 12 && !memcmp(at, "Adobe", 5) && head->adobe == NO_ADOBE;
        head->adobe = one ? at[11] : ODD_ADOBE;
    }
    return 0;
}

static int read_head(Head *head, const uint8_t *data, uint64_t length) {
    *head = (Head){.adobe = NO_ADOBE};
    if (length < 2 || load16(data) != 0xffd8) return DECLINED;
    for (uint64_t at = 2; length - at >= 4;) {
        unsigned size = load16(data + at + 2);
        if (data[at] != 0xff || size < 2 || size > length - at - 2) return DECLINED;
        int marker = data[at + 1], problem = 0;
        const uint8_t *body = data + at + 4;
        at += 2 + size, size -= 2;
        if (marker == 0xdb)
            problem = read_quantisers(head, body, size);
        else if (marker == 0xc4)
            problem = read_codes(head, body, size);
        else if (marker >> 4 == 0xe)
            problem = read_application(head, marker, body, size);
        else if (marker == 0xdd)
            problem = size != 2 || load16(body); /* restarts are rare */
        else if ((marker == 0xc0 || marker == 0xc1) && !head->frame && size >= 6) {
            head->frame = body, head->components = body[5];
            problem = size != 6 + 3 * (unsigned)body[5];
        } else if (marker == 0xda && head->frame) {
            head->scan = body, head->data = data + at;
            return size != 4 + 2 * (unsigned)head->components || body[0] != head->components;
        } else
            problem = marker != 0xfe;
        if (problem) return DECLINED;
    }
    return DECLINED;
}

typedef struct {
    uint64_t height, width;
    unsigned h, v; /* blocks of luma across and down in a unit of the scan */
    const uint8_t *quantisers, *dc, *ac;
    uint64_t nil[2];         /* the bits of a chroma block of zeros, from the highest on */
    unsigned nil_length[2];  /* 0 where there is no chroma */
} Image;

static unsigned find_code(const uint8_t *counts, int symbol, uint64_t *code) {
    const uint8_t *symbols = counts + 16;
    *code = 0;
    for (unsigned length = 1; length <= 16; length++, *code <<= 1)
        for (int i = 0; i < counts[length - 1]; i++, ++*code)
            if (*symbols++ == symbol) return length;
    return 0;
}

/* Whether the codes are what a decoder accepts: none too many, none of ones only, sizes within 16 bits. */
static int good_code(const uint8_t *counts, int is_dc) {
    const uint8_t *symbols = counts + 16;
    unsigned next = 0, most = 0;
    for (unsigned length = 1; length <= 16; length++, next <<= 1) {
        for (int i = 0; i < counts[length - 1]; i++, next++, symbols++) most = *symbols > most ? *symbols : most;
        if (counts[length - 1] && next >> length) return 0;
    }
    return !is_dc || most < 16;
}

static int read_image(Image *image, const Head *head, int components) {
    const uint8_t *frame = head->frame, *scan = head->scan;
    *image = (Image){.height = load16(frame + 1), .width = load16(frame + 3), .h = 1, .v = 1};
    if (frame[0] != 8 || !image->height || !image->width) return DECLINED;
    if (image->height > LONGEST_SIDE || image->width > LONGEST_SIDE) return DECLINED;
    if (head->components != components || (components != 1 && components != 3)) return DECLINED;
    if (load16(scan + 1 + 2 * components) != 63 || scan[3 + 2 * components]) return DECLINED;
    for (int i = 0; i < components; i++) {
        const uint8_t *of = frame + 6 + 3 * i, *in = scan + 1 + 2 * i;
        unsigned h = of[1] >> 4, v = of[1] & 15;
        if (of[0] != in[0] || of[2] > 3 || in[1] >> 4 > 3 || (in[1] & 15) > 3) return DECLINED;
        const uint8_t *dc = head->codes[0][in[1] >> 4], *ac = head->codes[1][in[1] & 15];
        if (!h || h > 4 || !v || v > 4 || !head->quantisers[of[2]]) return DECLINED;
        if (!dc || !ac || !good_code(dc, 1) || !good_code(ac, 0)) return DECLINED;
        if (!i) {
            image->quantisers = head->quantisers[of[2]], image->dc = dc, image->ac = ac;
            if (components == 1) continue; /* a scan of one component is not interleaved */
            image->h = h, image->v = v;
            if (h == 3 || v > 2 || h * v > 4) return DECLINED;
            continue;
        }
        uint64_t same, end;
        unsigned same_length = find_code(dc, 0, &same), end_length = find_code(ac, 0, &end);
        if (h != 1 || v != 1 || !same_length || !end_length) return DECLINED;
        image->nil_length[i - 1] = same_length + end_length;
        image->nil[i - 1] = (same << end_length | end) << (64 - same_length - end_length);
    }
    for (int k = 0; k < 64; k++)
        if (!image->quantisers[k]) return DECLINED;
    if (components == 1) return 0;
    /* whether libjpeg takes them for luma and chroma */
    int numbered = frame[6] == 1 && frame[9] == 2 && frame[12] == 3;
    if (frame[6] == frame[9] || frame[9] == frame[12] || frame[6] == frame[12]) return DECLINED;
    if (head->adobe == NO_ADOBE) return head->jfif || numbered ? 0 : DECLINED;
    return head->adobe == 1 ? 0 : DECLINED;
}

/* ---- Huffman codes ---- */

typedef struct {
    uint16_t symbol[1 << LOOK]; /* of the next bits: length << 8 | symbol; 0 where the code is longer */
    uint32_t beyond[17];        /* the next 16 bits are at least that where the code is longer than so many bits */
    int32_t place[17];          /* where in `symbols` a code of so many bits has its own: less the code */
    const uint8_t *symbols;
} Code;

/* An entry says what the next bits are: as many whole symbols as possible. From the lowest bit on: how many bits they
   take (6 bits), END where the block is complete with them, how far they lead along the zigzag (from bit 8), how far
   the first value is (from bit 27), and the values of the four places from there. SLOW leads too far for any block. */
typedef struct {
    Code dc, ac;
    uint64_t entries[1 << LOOK]; /* for ac */
} Tables;

enum { END = 1 << 7, SLOW = 128 << 8 };
enum { SMALL = 7 }; /* bits of a value there; times any quantiser it fits 16 */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define PLACE(place) (56 - 8 * (place)) /* values are stored as they lie in memory */
#else
#define PLACE(place) (32 + 8 * (place))
#endif

INLINE unsigned used_by(uint64_t entry) { return entry & 63; }
INLINE unsigned steps_of(uint64_t entry) { return (uint8_t)(entry >> 8); }
INLINE unsigned before(uint64_t entry) { return (uint32_t)entry >> 27; }

INLINE int signed_value(unsigned bits, unsigned size) {
    return size && !(bits >> (size - 1)) ? (int)bits - (1 << size) + 1 : (int)bits;
}

static void make_code(Code *code, const uint8_t *counts) {
    unsigned next = 0, n = 0;
    memset(code->symbol, 0, sizeof code->symbol);
    code->symbols = counts + 16;
    for (unsigned length = 1; length <= 16; length++, next <<= 1) {
        code->place[length] = (int32_t)n - (int32_t)next;
        for (int i = 0; i < counts[length - 1]; i++, n++, next++) {
            if (length > LOOK) continue;
            uint16_t *at = code->symbol + (next << (LOOK - length));
            for (unsigned k = 0; k < 1u << (LOOK - length); k++) at[k] = (uint16_t)(length << 8 | code->symbols[n]);
        }
        code->beyond[length] = next << (16 - length);
    }
}

/* The entries of one symbol alone. */
static void make_singles(uint64_t *entries, const Code *code) {
    for (unsigned bits = 0; bits < 1u << LOOK;) {
        unsigned symbol = code->symbol[bits], length = symbol >> 8, run = symbol >> 4 & 15, size = symbol & 15;
        unsigned ends = length + size;
        if (!length || size > SMALL || ends > LOOK || (!size && run && run < 15)) {
            entries[bits++] = SLOW;
            continue;
        }
        for (unsigned value = 0; value < 1u << size; value++) {
            uint64_t entry = ends | (run + 1) << 8 | run << 27 | (symbol & 255 ? 0 : END);
            entry |= (uint64_t)(uint8_t)signed_value(value, size) << PLACE(0);
            for (unsigned i = 0; i < 1u << (LOOK - ends); i++) entries[bits++] = entry;
        }
    }
}

/* `entry` and what follows it in `bits`. */
INLINE uint64_t joined(uint64_t entry, const uint64_t *singles, unsigned bits) {
    while (entry != SLOW && !(entry & END)) {
        uint64_t next = singles[bits << used_by(entry) & ((1u << LOOK) - 1)];
        unsigned place = steps_of(entry) - before(entry) + before(next);
        if (next == SLOW || used_by(entry) + used_by(next) > LOOK) break;
        if (next & END) return entry + used_by(next) + END;
        if (place > 3) break;
        entry += used_by(next) + ((uint64_t)steps_of(next) << 8) + ((next >> PLACE(0) & 255) << PLACE(place));
    }
    return entry;
}

static void make_tables(Tables *tables, const Image *image) {
    uint64_t singles[1 << LOOK];
    make_code(&tables->dc, image->dc);
    make_code(&tables->ac, image->ac);
    make_singles(singles, &tables->ac);
    for (unsigned bits = 0; bits < 1u << LOOK; bits++) tables->entries[bits] = joined(singles[bits], singles, bits);
}

/* ---- bits ---- */

/* The highest `count` of `bits`, and some behind those, are the next; `at` has the ones after them. */
typedef struct {
    uint64_t bits, count; /* of the latter only the lowest 6 bits mean anything */
    const uint8_t *at;
} Bits;

typedef struct {
    Bits next;
    const uint8_t *from, *stop; /* of the payload */
    uint8_t *end;               /* of what is in the window */
    int ended;                  /* the payload has no more */
    uint8_t window[WINDOW + SLACK];
} Reader;

INLINE uint64_t load64(const uint8_t *at) {
    return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 | (uint64_t)at[3] << 32 |
           (uint64_t)at[4] << 24 | (uint64_t)at[5] << 16 | (uint64_t)at[6] << 8 | at[7];
}

INLINE void refill(Bits *next) { /* to at least 56 bits */
    next->bits |= load64(next->at) >> (next->count & 63);
    next->at += ~next->count >> 3 & 7;
    next->count |= 56;
}

INLINE void skip(Bits *next, uint64_t count) { next->bits <<= count & 63, next->count -= count; }

/* How many bits are left in the window; negative where more were taken than there were. */
INLINE int64_t bits_left(const Reader *in) { return 8 * (in->end - in->next.at) + (int64_t)(in->next.count & 63); }

/* Make sure of SLACK bytes in the window, the stuffed ones taken out; zeros follow the last of the scan. */
static int fill(Reader *in) {
    if (bits_left(in) < 0) return DECLINED;
    if (in->ended || in->end - in->next.at >= SLACK) return 0;
    size_t kept = (size_t)(in->end - in->next.at);
    memmove(in->window, in->next.at, kept);
    in->next.at = in->window;
    in->end = in->window + kept;
    while (!in->ended && in->end < in->window + WINDOW) {
        size_t size = (size_t)(in->stop - in->from), room = (size_t)(in->window + WINDOW - in->end);
        if (size > room) size = room;
        const uint8_t *marker = size ? memchr(in->from, 0xff, size) : NULL;
        if (marker) size = (size_t)(marker + 1 - in->from);
        memcpy(in->end, in->from, size);
        in->end += size, in->from += size;
        if (!marker && in->from < in->stop) continue;
        if (in->from == in->stop) return DECLINED;
        int byte = *in->from++;
        if (byte && byte != 0xd9) return DECLINED;
        if (byte) {
            in->ended = 1;
            memset(--in->end, 0, SLACK);
        }
    }
    return 0;
}

/* ---- blocks ---- */

typedef struct {
    uint16_t place; /* 64 * block + place in the zigzag */
    int16_t value;
} Large;

/* Coefficients of blocks side by side, in the order of the zigzag and as in the scan; but those of 0, 0 are in `dc`,
   quantised no more, and what exceeds 8 bits is in `large`. */
typedef struct {
    int8_t values[64 * BATCH + 8]; /* four are stored at once */
    int16_t dc[BATCH];
    uint8_t known[BATCH]; /* how many coefficients may be other than 0 */
    unsigned larges;
    Large large[64 * BATCH + 1];
} Row;

/* The next symbol, negative where there is none such; its value is in the bits thereafter. */
INLINE int read_symbol(Bits *next, const Code *code) {
    unsigned symbol = code->symbol[next->bits >> (64 - LOOK)], length = symbol >> 8;
    if (!length) {
        unsigned ahead = (unsigned)(next->bits >> 48);
        length = LOOK + 1;
        for (int n = LOOK + 1; n <= 16; n++) length += ahead >= code->beyond[n];
        if (length > 16) return -1;
        symbol = code->symbols[code->place[length] + (int32_t)(ahead >> (16 - length))];
    }
    skip(next, length);
    return symbol & 255;
}

INLINE int read_value(Bits *next, unsigned size) {
    unsigned bits = (unsigned)(next->bits >> 1 >> (63 - size));
    int least = next->bits >> 63 ? 0 : 1 - (1 << size);
    skip(next, size);
    return least + (int)bits;
}

/* Read `n` blocks, of which the first is `first` in `row`; there are SLACK bytes in the window. */
INLINE int read_blocks(Reader *in, const Tables *tables, const uint8_t *quantisers, int *predicted, Row *row,
                       unsigned first, unsigned n) {
    Bits next = in->next;
    const int most = INT16_MAX / quantisers[0];
    for (unsigned number = first; number < first + n; number++) {
        int8_t *block = row->values + 64 * number;
        refill(&next);
        int symbol = read_symbol(&next, &tables->dc);
        if (symbol < 0) return DECLINED;
        *predicted += read_value(&next, (unsigned)symbol);
        if (*predicted > most || *predicted < -most) return DECLINED;
        row->dc[number] = (int16_t)(*predicted * quantisers[0]);
        unsigned k = 1; /* how many coefficients are known */
        while (k < 64) {
            refill(&next);
            for (int i = 0; i < 56 / LOOK; i++) {
                uint64_t entry = tables->entries[next.bits >> (64 - LOOK)];
                unsigned then = k + steps_of(entry);
                if (then > 63) goto slow;
                uint32_t values = (uint32_t)(entry >> 32);
                memcpy(block + k + before(entry), &values, sizeof values);
                skip(&next, entry);
                k = then;
                if (entry & END) goto complete;
            }
            continue;
        slow:
            refill(&next);
            symbol = read_symbol(&next, &tables->ac);
            if (symbol < 0 || (symbol && symbol < 0xf0 && !(symbol & 15))) return DECLINED;
            if (!symbol) break;
            k += (unsigned)symbol >> 4;
            if (k > 63) return DECLINED;
            int value = read_value(&next, symbol & 15);
            block[k] = (int8_t)value;
            if (value != (int8_t)value) {
                if (value * quantisers[k] != (int16_t)(value * quantisers[k])) return DECLINED;
                row->large[row->larges++] = (Large){(uint16_t)(64 * number + k), (int16_t)value};
            }
            k++;
        }
    complete:
        row->known[number] = (uint8_t)k;
    }
    in->next = next;
    return 0;
}

/* ---- the inverse cosine transform ---- */

/* Weights, in 8192ths, of the inputs 0, 2, 4, 6 and 1, 3, 5, 7: output i < 4 is the sum of both halves, output 7 - i
   their difference. They are what the rounded constants of the algorithm of Loeffler, Ligtenberg and Moschytz add up
   to, input by input, so the results are those of libjpeg's "islow", which goes there with fewer multiplications. */
static const int16_t EVEN[4][4] = {
    {8192, 10703, 8192, 4433}, {8192, 4433, -8192, -10704}, {8192, -4433, -8192, 10704}, {8192, -10703, 8192, -4433}};
static const int16_t ODD[4][4] = {
    {11363, 9633, 6437, 2260}, {9633, -2259, -11362, -6436}, {6437, -11362, 2261, 9633}, {2260, -6436, 9633, -11363}};

static const uint8_t ZIGZAG[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                   12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                   35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                   58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

enum { FIRST_SHIFT = 11, SECOND_SHIFT = 18 }; /* columns keep two bits more; rows drop them, and the factor of 8 */

/* Decoders agree as long as sums of two values fit the 16 bits that some add in, and samples are not so far off that
   they are not clamped alike. Looking at the samples is enough: where all are within FAR of the middle, the inverse of
   the weights tells that what went into the second pass was at most 32 * 511.5, so was not clamped to 16 bits, and that
   the coefficients were at most 4093. */
enum { FAR = 511 };

typedef struct {
    uint8_t place[64];      /* in `quantisers` of each place in the zigzag */
    int16_t quantisers[64];
    int8_t masks[2][4][32]; /* which of 16 values in the zigzag come to which of 32 places; but 0, 0 */
} Plan;

INLINE int clamp(int value, int least, int most) { return value < least ? least : value > most ? most : value; }

/* Eight values of every block, `step` apart. */
INLINE void transform(int16_t (*values)[BATCH], const int step, const int shift) {
    for (int n = 0; n < BATCH; n++) {
        const int32_t in[8] = {values[0][n],        values[step][n],     values[2 * step][n], values[3 * step][n],
                               values[4 * step][n], values[5 * step][n], values[6 * step][n], values[7 * step][n]};
        const int32_t a = 8192 * (in[0] + in[4]) + (1 << (shift - 1)), b = 8192 * (in[0] - in[4]) + (1 << (shift - 1));
        const int32_t c = EVEN[0][1] * in[2] + EVEN[0][3] * in[6], d = EVEN[1][1] * in[2] + EVEN[1][3] * in[6];
        const int32_t even[4] = {a + c, b + d, b - d, a - c};
        for (int i = 0; i < 4; i++) {
            int32_t odd = ODD[i][0] * in[1] + ODD[i][1] * in[3] + ODD[i][2] * in[5] + ODD[i][3] * in[7];
            values[i * step][n] = (int16_t)clamp((even[i] + odd) >> shift, INT16_MIN, INT16_MAX);
            values[(7 - i) * step][n] = (int16_t)clamp((even[i] - odd) >> shift, INT16_MIN, INT16_MAX);
        }
    }
}

/* The samples of `n` blocks, side by side, to eight lines. Gives whether any is too far off. */
static int finish_plain(const Row *row, unsigned n, const Plan *plan, uint8_t *const lines[8]) {
    int16_t values[64][BATCH]; /* compilers find vectors in loops over blocks */
    int far = 0;
    memset(values, 0, sizeof values);
    for (unsigned number = 0; number < n; number++) {
        for (int k = 1; k < row->known[number]; k++) {
            int place = plan->place[k];
            values[place][number] = (int16_t)(row->values[64 * number + (unsigned)k] * plan->quantisers[place]);
        }
        values[0][number] = row->dc[number];
    }
    for (const Large *large = row->large; large < row->large + row->larges; large++) {
        int place = plan->place[large->place & 63];
        values[place][large->place >> 6] = (int16_t)(large->value * plan->quantisers[place]);
    }
    for (int x = 0; x < 8; x++) transform(values + x, 8, FIRST_SHIFT);
    for (int y = 0; y < 8; y++) transform(values + 8 * y, 1, SECOND_SHIFT);
    for (int place = 0; place < 64; place++)
        for (int number = 0; number < BATCH; number++) {
            int sample = values[place][number];
            far |= sample > FAR || sample < -FAR;
            values[place][number] = (int16_t)clamp(sample + 128, 0, 255);
        }
    for (int y = 0; y < 8; y++)
        for (unsigned number = 0; number < n; number++)
            for (int x = 0; x < 8; x++) lines[y][8 * number + (unsigned)x] = (uint8_t)values[8 * y + x][number];
    return far;
}

static void make_plan(Plan *plan, const uint8_t *quantisers, int fast) {
    /* For vectors: rows in pairs that are multiplied together, and of them columns 0, 4, 2, 6 before 1, 3, 5, 7. */
    static const uint8_t order[8] = {0, 4, 2, 5, 1, 6, 3, 7};
    memset(plan->masks, 0x80, sizeof plan->masks);
    for (int k = 0; k < 64; k++) {
        int place = ZIGZAG[k], y = order[place >> 3], x = order[place & 7];
        if (fast) place = (y >> 1) * 16 + (x >> 2) * 8 + (x & 3) * 2 + (y & 1);
        plan->place[k] = (uint8_t)place;
        plan->quantisers[place] = quantisers[k];
        if (k) plan->masks[place >> 5][k >> 4][place & 31] = (int8_t)(k & 15);
    }
}

#if defined(AVX2)

#define PAIR(a, b) _mm256_set1_epi32((int)((uint32_t)(uint16_t)(a) | (uint32_t)(uint16_t)(b) << 16))
#define EIGHT(w, i, j) w[0][i], w[0][j], w[1][i], w[1][j], w[2][i], w[2][j], w[3][i], w[3][j]

/* The two rows of a vector that has four even columns of both in the lower half, four odd ones in the upper. */
AVX2 INLINE __m256i transform_rows(__m256i rows) {
    const __m256i first = _mm256_setr_epi16(EIGHT(EVEN, 0, 2), EIGHT(ODD, 0, 1));
    const __m256i second = _mm256_setr_epi16(EIGHT(EVEN, 1, 3), EIGHT(ODD, 2, 3));
    __m256i a = _mm256_add_epi32(_mm256_madd_epi16(_mm256_shuffle_epi32(rows, 0x00), first),
                                 _mm256_madd_epi16(_mm256_shuffle_epi32(rows, 0x55), second));
    __m256i b = _mm256_add_epi32(_mm256_madd_epi16(_mm256_shuffle_epi32(rows, 0xaa), first),
                                 _mm256_madd_epi16(_mm256_shuffle_epi32(rows, 0xff), second));
    __m256i even = _mm256_permute2x128_si256(a, b, 0x20), odd = _mm256_permute2x128_si256(a, b, 0x31);
    return _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(even, odd), SECOND_SHIFT),
                              _mm256_srai_epi32(_mm256_sub_epi32(even, odd), SECOND_SHIFT));
}

AVX2 INLINE __m256i narrow(__m256i a, __m256i b) {
    return _mm256_packs_epi32(_mm256_srai_epi32(a, FIRST_SHIFT), _mm256_srai_epi32(b, FIRST_SHIFT));
}

/* Outputs 0, 1, 2, 3, 7, 6, 5, 4 of rows 0, 2, 1, 3 as samples to their lines. */
AVX2 INLINE void store_rows(__m256i a, __m256i b, uint8_t *const lines[4], size_t x) {
    const __m256i middle = _mm256_set1_epi8((char)0x80);
    const __m256i straight = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 15, 14, 13, 12));
    __m256i samples = _mm256_shuffle_epi8(_mm256_xor_si256(_mm256_packs_epi16(a, b), middle), straight);
    __m128i low = _mm256_castsi256_si128(samples), high = _mm256_extracti128_si256(samples, 1);
    _mm_storel_epi64((__m128i *)(void *)(lines[0] + x), low);
    _mm_storel_epi64((__m128i *)(void *)(lines[1] + x), high);
    _mm_storeh_pi((__m64 *)(void *)(lines[2] + x), _mm_castsi128_ps(low));
    _mm_storeh_pi((__m64 *)(void *)(lines[3] + x), _mm_castsi128_ps(high));
}

/* As finish_plain; a vector has two rows in the order of the plan. */
AVX2 static int finish_avx2(const Row *row, unsigned n, const Plan *plan, uint8_t *const lines[8]) {
    const Large *large = row->large, *end = large + row->larges;
    __m256i size = _mm256_setzero_si256();
    for (unsigned number = 0; number < n; number++) {
        const __m128i *from = (const __m128i *)(const void *)(row->values + 64 * number);
        __m256i in[4], ordered[2];
        for (int i = 0; i < 4; i++) in[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128(from + i));
        for (int half = 0; half < 2; half++) {
            const __m256i *masks = (const __m256i *)(const void *)plan->masks[half];
            ordered[half] = _mm256_shuffle_epi8(in[0], _mm256_loadu_si256(masks));
            for (int i = 1; i < 4; i++)
                ordered[half] =
                    _mm256_or_si256(ordered[half], _mm256_shuffle_epi8(in[i], _mm256_loadu_si256(masks + i)));
        }
        const __m256i *steps = (const __m256i *)(const void *)plan->quantisers;
        for (int half = 0; half < 2; half++) {
            __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(ordered[half]));
            __m256i high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(ordered[half], 1));
            in[2 * half] = _mm256_mullo_epi16(low, _mm256_loadu_si256(steps + 2 * half));
            in[2 * half + 1] = _mm256_mullo_epi16(high, _mm256_loadu_si256(steps + 2 * half + 1));
        }
        if (large < end && large->place >> 6 == number) {
            int16_t values[64];
            memcpy(values, in, sizeof values);
            for (; large < end && large->place >> 6 == number; large++) {
                int place = plan->place[large->place & 63];
                values[place] = (int16_t)(large->value * plan->quantisers[place]);
            }
            memcpy(in, values, sizeof values);
        }
        in[0] = _mm256_or_si256(in[0], _mm256_zextsi128_si256(_mm_cvtsi32_si128((uint16_t)row->dc[number])));

        /* rounding; and that of the second pass, which is 16 in its first column */
        const int half = 1 << (FIRST_SHIFT - 1), first = half + (1 << (SECOND_SHIFT - 1 - 13 + FIRST_SHIFT));
        const __m256i rounding = _mm256_setr_epi32(first, half, half, half, half, half, half, half);
        __m256i a = _mm256_add_epi32(_mm256_madd_epi16(in[0], PAIR(8192, 8192)), rounding);
        __m256i b = _mm256_add_epi32(_mm256_madd_epi16(in[0], PAIR(8192, -8192)), rounding);
        __m256i c = _mm256_madd_epi16(in[1], PAIR(EVEN[0][1], EVEN[0][3]));
        __m256i d = _mm256_madd_epi16(in[1], PAIR(EVEN[1][1], EVEN[1][3]));
        __m256i even[4] = {_mm256_add_epi32(a, c), _mm256_add_epi32(b, d), _mm256_sub_epi32(b, d),
                           _mm256_sub_epi32(a, c)};
        __m256i out[8], odd;
        for (int i = 0; i < 4; i++) {
            odd = _mm256_add_epi32(_mm256_madd_epi16(in[2], PAIR(ODD[i][0], ODD[i][1])),
                                   _mm256_madd_epi16(in[3], PAIR(ODD[i][2], ODD[i][3])));
            out[i] = _mm256_add_epi32(even[i], odd), out[7 - i] = _mm256_sub_epi32(even[i], odd);
        }
        for (int i = 0; i < 4; i++) {
            in[i] = transform_rows(narrow(out[2 * i], out[2 * i + 1]));
            size = _mm256_or_si256(size, _mm256_abs_epi16(in[i]));
        }
        store_rows(in[0], in[1], lines, 8 * (size_t)number);
        store_rows(in[2], in[3], lines + 4, 8 * (size_t)number);
    }
    const __m256i beyond = _mm256_set1_epi16((int16_t)~FAR);
    return !_mm256_testz_si256(size, beyond);
}

#endif

/* ---- the image ---- */

/* The rows of an image lie in planes. */
typedef struct {
    uint8_t *out;
    uint64_t rows; /* of a plane */
    int64_t plane_stride, row_stride;
} Target;

static int skip_chroma(Reader *in, const Image *image) {
    for (int i = 0; i < 2; i++) {
        refill(&in->next);
        if ((in->next.bits ^ image->nil[i]) >> (64 - image->nil_length[i])) return DECLINED;
        skip(&in->next, image->nil_length[i]);
    }
    return 0;
}

/* Read blocks side by side, `row` by `row` where a unit of the scan has several. */
INLINE int read_batch(Reader *in, const Tables *tables, const Image *image, int *predicted, Row rows[2],
                      unsigned blocks) {
    unsigned together = image->nil_length[0] ? image->h : blocks;
    for (unsigned v = 0; v < image->v; v++) {
        memset(rows[v].values, 0, 64 * (size_t)blocks);
        rows[v].larges = 0;
    }
    for (unsigned first = 0; first < blocks; first += together) {
        for (unsigned v = 0; v < image->v; v++) {
            if (fill(in)) return DECLINED;
            if (read_blocks(in, tables, image->quantisers, predicted, &rows[v], first, together)) return DECLINED;
        }
        if (image->nil_length[0] && skip_chroma(in, image)) return DECLINED;
    }
    return 0;
}

/* Eight lines of `width` samples, of which `height` are wanted; also where the blocks have more. */
INLINE int write_batch(const Row *row, unsigned blocks, const Plan *plan, uint8_t *const lines[8], uint64_t height,
                       uint64_t width, const int fast) {
    uint8_t scratch[8][8 * BATCH], *to[8];
    int clipped = height < 8 || width < 8 * (uint64_t)blocks, far;
    for (int y = 0; y < 8; y++) to[y] = clipped ? scratch[y] : lines[y];
#if defined(AVX2)
    far = fast ? finish_avx2(row, blocks, plan, to) : finish_plain(row, blocks, plan, to);
#else
    (void)fast;
    far = finish_plain(row, blocks, plan, to);
#endif
    if (far) return DECLINED;
    for (uint64_t y = 0; clipped && y < 8 && y < height; y++)
        memcpy(lines[y], scratch[y], (size_t)(width < 8 * (uint64_t)blocks ? width : 8 * (uint64_t)blocks));
    return 0;
}

INLINE int read_scan(Reader *in, const Image *image, const Target *target, const int fast) {
    Tables tables;
    Plan plan;
    Row rows[2];
    int predicted = 0;
    make_tables(&tables, image);
    make_plan(&plan, image->quantisers, fast);
    const uint64_t unit = 8 * image->h, width = (image->width + unit - 1) / unit * unit;
    uint64_t row = 0;
    int64_t plane = 0;
    for (uint64_t top = 0; top < image->height; top += 8 * image->v) {
        uint8_t *lines[16], *batch[16];
        const uint64_t height = image->height - top < 8 * image->v ? image->height - top : 8 * image->v;
        for (uint64_t y = 0; y < height; y++, row++) {
            if (row == target->rows) row = 0, plane++;
            lines[y] = target->out + plane * target->plane_stride + (int64_t)row * target->row_stride;
        }
        for (uint64_t left = 0; left < width; left += 8 * BATCH) {
            unsigned blocks = width - left < 8 * BATCH ? (unsigned)(width - left) / 8 : BATCH;
            const uint64_t here = image->width - left;
            for (uint64_t y = 0; y < height; y++) {
                batch[y] = lines[y] + left;
                __builtin_prefetch(batch[y], 1); /* rows far apart are fetched while the bits are read */
                __builtin_prefetch(batch[y] + (here < 8 * BATCH ? here : 8 * BATCH) - 1, 1);
            }
            if (read_batch(in, &tables, image, &predicted, rows, blocks)) return DECLINED;
            for (uint64_t v = 0; 8 * v < height; v++)
                if (write_batch(&rows[v], blocks, &plan, batch + 8 * v, height - 8 * v, here, fast)) return DECLINED;
        }
    }
    if (fill(in) || !in->ended || bits_left(in) > 7) return DECLINED;
    return image->nil_length[0] && in->from < in->stop; /* behind a grey image anything may follow */
}

static int read_scan_plain(Reader *in, const Image *image, const Target *target) {
    return read_scan(in, image, target, 0);
}

#if defined(AVX2)
static int has_vectors(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}

AVX2 static int read_scan_vectors(Reader *in, const Image *image, const Target *target) {
    return read_scan(in, image, target, 1);
}
#else
static int has_vectors(void) { return 0; }

static int read_scan_vectors(Reader *in, const Image *image, const Target *target) {
    return read_scan_plain(in, image, target);
}
#endif

EXPORT int storefs_jpeg_interface(void) { return INTERFACE; }

/* Decode the image of `length` bytes at `data`, which must have that many `components`, to `shape` (z, y, x) samples
   at `out`, of which planes and rows are `strides` bytes apart. Rows of an image of another width can only follow one
   another without gaps. */
EXPORT int storefs_jpeg_decode(const uint8_t *data, uint64_t length, int components, uint8_t *out,
                               const uint64_t shape[3], const int64_t strides[2], int how) {
    Head head;
    Image image;
    const int vectors = how != PLAIN && has_vectors();
#if defined(__x86_64__)
    if (how != PLAIN && !vectors) return DECLINED; /* libjpeg-turbo is faster with those that any of them has */
#endif
    if (read_head(&head, data, length) || read_image(&image, &head, components)) return DECLINED;
    if (components > 1 && head.data - data > COLOUR_HEAD) return DECLINED;
    if (how == WHERE_FASTER && image.height * image.width < FEW_SAMPLES) return DECLINED;
    uint64_t z = shape[0], y = shape[1], x = shape[2];
    if (z > UINT32_MAX || y > UINT32_MAX || x > UINT32_MAX || z * y > UINT32_MAX) return DECLINED;
    if (image.height * image.width != z * y * x) return DECLINED;
    Target target = {out, y, strides[0], strides[1]};
    if (image.width != x) {
        if ((y > 1 && strides[1] != (int64_t)x) || (z > 1 && strides[0] != (int64_t)(y * x))) return NEEDS_CONTIGUOUS;
        target = (Target){out, image.height, 0, (int64_t)image.width};
    }
    Reader in;
    in.next = (Bits){0, 0, in.window};
    in.from = head.data, in.stop = data + length, in.end = in.window, in.ended = 0;
    return vectors ? read_scan_vectors(&in, &image, &target) : read_scan_plain(&in, &image, &target);
}
