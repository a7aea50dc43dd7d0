/* The row filters of PNG images (https://www.w3.org/TR/png-3/, clause 9) undone, for samples of 8 and 16 bits that are
   not interlaced; the samples go where they belong in an array of any strides.

   A sample depends on the one to its left, so that a row cannot be cut into vectors. Vectors have a byte each of 32
   rows, in which each row is a pixel behind the one above it: whatever a sample depends on is then known.

   Memory-safe for every input: nothing outside the rows is read or written, nothing outside the array is written, and
   all filters are known to be good before anything is. Nothing here keeps state or allocates, so any number of threads
   may call at once. */

#include "labels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !(defined(_WIN32) && !defined(__clang__)) /* gcc misaligns there */
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

enum { INTERFACE = 1 }; /* raise with every change of a signature below */
enum { UNKNOWN_FILTER = 1, MISUSED };
enum { USUAL, PLAIN }; /* the second is for tests: without vectors */
enum { NONE, SUB, UP, AVERAGE, PAETH };

#if !defined(STRIP)
#define STRIP 480 /* bytes of a row that are undone together; whole pixels of any size */
#endif

enum {
    LARGEST = 8,  /* bytes of a pixel */
    LANES = 32,
    STEPS = 16,
    BEFORE = 256, /* room for LANES - 1 pixels */
    AHEAD = 16,
    PITCH = BEFORE + STRIP + BEFORE + STEPS + 48 /* the last keeps rows off each other's places in the cache */
};

/* ---- where samples go ---- */

typedef struct {
    uint8_t *out;
    uint64_t channels, y, x;
    int64_t channel_stride, z_stride, y_stride, x_stride;
    int size;                        /* bytes of a sample */
    uint64_t next, at_z, at_y, at_x; /* the pixel behind the last one put, and its place */
} Target;

/* `n` samples, `step` bytes apart, as they lie in little-endian arrays. */
INLINE void put_samples(uint8_t *to, int64_t stride, const uint8_t *from, uint64_t n, const int size, const int step) {
    if (size == 1 && step == 1 && stride == 1)
        memcpy(to, from, (size_t)n);
    else if (size == 1 && stride == 1)
        for (uint64_t i = 0; i < n; i++) to[i] = from[i * (uint64_t)step];
    else if (size == 1)
        for (uint64_t i = 0; i < n; i++, to += stride) *to = from[i * (uint64_t)step];
    else if (stride == 2)
        for (uint64_t i = 0; i < n; i++) {
            to[2 * i] = from[i * (uint64_t)step + 1];
            to[2 * i + 1] = from[i * (uint64_t)step];
        }
    else
        for (uint64_t i = 0; i < n; i++, to += stride, from += step) to[0] = from[1], to[1] = from[0];
}

static void put_run(const Target *t, uint8_t *to, const uint8_t *from, uint64_t n) {
    for (uint64_t c = 0; c < t->channels; c++, to += t->channel_stride, from += t->size)
        switch ((int)t->channels * 10 + t->size) {
        case 11: put_samples(to, t->x_stride, from, n, 1, 1); break;
        case 21: put_samples(to, t->x_stride, from, n, 1, 2); break;
        case 31: put_samples(to, t->x_stride, from, n, 1, 3); break;
        case 41: put_samples(to, t->x_stride, from, n, 1, 4); break;
        case 12: put_samples(to, t->x_stride, from, n, 2, 2); break;
        case 22: put_samples(to, t->x_stride, from, n, 2, 4); break;
        case 32: put_samples(to, t->x_stride, from, n, 2, 6); break;
        default: put_samples(to, t->x_stride, from, n, 2, 8); break;
        }
}

/* The `n` pixels from `pixel` on, counted in the order of the image. */
static void put_pixels(Target *t, uint64_t pixel, const uint8_t *from, uint64_t n) {
    if (pixel != t->next) {
        uint64_t row = pixel / t->x;
        t->at_x = pixel % t->x, t->at_y = row % t->y, t->at_z = row / t->y;
    }
    t->next = pixel + n;
    while (n) {
        uint64_t run = n < t->x - t->at_x ? n : t->x - t->at_x;
        put_run(t, t->out + (int64_t)t->at_z * t->z_stride + (int64_t)t->at_y * t->y_stride +
                       (int64_t)t->at_x * t->x_stride, from, run);
        from += run * t->channels * (uint64_t)t->size, n -= run;
        t->at_x += run;
        if (t->at_x == t->x) {
            t->at_x = 0;
            if (++t->at_y == t->y) t->at_y = 0, t->at_z++;
        }
    }
}

/* ---- an image ---- */

typedef struct {
    uint8_t *rows;                /* each behind its filter */
    uint64_t length, height, row; /* bytes of all, number, bytes of one without its filter */
    int pixel;                    /* bytes */
} Image;

INLINE uint8_t *row_of(const Image *image, uint64_t y) { return image->rows + y * (image->row + 1); }

/* ---- row by row, where there are no vectors ---- */

INLINE uint8_t paeth(int left, int up, int corner) {
    int a = up - corner, b = left - corner, c = a + b;
    a = a < 0 ? -a : a, b = b < 0 ? -b : b, c = c < 0 ? -c : c;
    int other = b <= c ? up : corner;
    return (uint8_t)(a <= b && a <= c ? left : other);
}

/* Undo a row in its place; `above` is the row above it, NULL for the first. */
INLINE void undo_row(uint8_t *row, const uint8_t *above, uint64_t n, int filter, const int pixel) {
    uint8_t left[LARGEST] = {0}, corner[LARGEST] = {0};
    if (!above && filter == PAETH) filter = SUB;
    if (filter == SUB)
        for (uint64_t x = 0; x < n; x += (uint64_t)pixel)
            for (int i = 0; i < pixel; i++) row[x + (uint64_t)i] = left[i] = (uint8_t)(row[x + (uint64_t)i] + left[i]);
    else if (filter == UP && above)
        for (uint64_t x = 0; x < n; x++) row[x] = (uint8_t)(row[x] + above[x]);
    else if (filter == AVERAGE)
        for (uint64_t x = 0; x < n; x += (uint64_t)pixel)
            for (int i = 0; i < pixel; i++) {
                uint64_t at = x + (uint64_t)i;
                row[at] = left[i] = (uint8_t)(row[at] + (left[i] + (above ? above[at] : 0)) / 2);
            }
    else if (filter == PAETH)
        for (uint64_t x = 0; x < n; x += (uint64_t)pixel)
            for (int i = 0; i < pixel; i++) {
                uint64_t at = x + (uint64_t)i;
                row[at] = left[i] = (uint8_t)(row[at] + paeth(left[i], above[at], corner[i]));
                corner[i] = above[at];
            }
}

INLINE void undo_rows(const Image *image, Target *target, const int pixel) {
    for (uint64_t y = 0; y < image->height; y++) {
        uint8_t *row = row_of(image, y);
        undo_row(row + 1, y ? row - image->row : NULL, image->row, row[0], pixel);
        put_pixels(target, y * (image->row / (uint64_t)pixel), row + 1, image->row / (uint64_t)pixel);
    }
}

static void undo_plainly(const Image *image, Target *target) {
    switch (image->pixel) {
    case 1: undo_rows(image, target, 1); break;
    case 2: undo_rows(image, target, 2); break;
    case 3: undo_rows(image, target, 3); break;
    case 4: undo_rows(image, target, 4); break;
    case 6: undo_rows(image, target, 6); break;
    default: undo_rows(image, target, 8); break;
    }
}

/* ---- 32 rows at once ---- */

#if defined(AVX2)

/* A strip of LANES rows. Step t undoes byte t of the first row, byte t - pixel of the second, and so on; bytes before
   the strip are as in `left`, bytes behind it are of no use. */
typedef struct {
    const uint8_t *lanes[LANES]; /* where the strip of each row begins */
    uint8_t filters[LANES];
    uint8_t left[LARGEST][LANES]; /* the pixel before the strip, of each row */
    uint8_t above[AHEAD + PITCH]; /* the row above, from AHEAD on, with the pixel before the strip */
    uint8_t rows[LANES][PITCH];   /* what comes out, from BEFORE on; what goes in, where more than it would be read */
} Wave;

/* Which rows predict from what: from the left and the upper sample, from all three as Paeth does, from a mean. */
typedef struct {
    __m256i left, up, corner, mean;
} Predictors;

/* Of the 16 steps of a block, and of as many before it as a pixel has bytes. */
typedef struct {
    __m256i left[LARGEST + STEPS], up[LARGEST + STEPS];
} Steps;

AVX2 INLINE __m256i load_lanes(const uint8_t *at) { return _mm256_loadu_si256((const __m256i *)(const void *)at); }

AVX2 INLINE __m128i load_half(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)(const void *)at); }

AVX2 INLINE Predictors read_filters(const uint8_t filters[LANES]) {
    Predictors p;
    __m256i of = load_lanes(filters);
    p.corner = _mm256_cmpeq_epi8(of, _mm256_set1_epi8(PAETH));
    p.left = _mm256_or_si256(_mm256_cmpeq_epi8(of, _mm256_set1_epi8(SUB)), p.corner);
    p.up = _mm256_or_si256(_mm256_cmpeq_epi8(of, _mm256_set1_epi8(UP)), p.corner);
    p.mean = _mm256_cmpeq_epi8(of, _mm256_set1_epi8(AVERAGE));
    return p;
}

/* Both halves of the vectors by themselves. */
AVX2 INLINE void transpose(__m256i v[STEPS]) {
    __m256i w[STEPS];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < STEPS / 2; i++) {
            w[2 * i] = _mm256_unpacklo_epi8(v[i], v[i + STEPS / 2]);
            w[2 * i + 1] = _mm256_unpackhi_epi8(v[i], v[i + STEPS / 2]);
        }
        for (int i = 0; i < STEPS / 2; i++) {
            v[2 * i] = _mm256_unpacklo_epi8(w[i], w[i + STEPS / 2]);
            v[2 * i + 1] = _mm256_unpackhi_epi8(w[i], w[i + STEPS / 2]);
        }
    }
}

/* The upper samples: those of the lanes before. `above` is where the first one's is. */
AVX2 INLINE __m256i upper(__m256i left, const uint8_t *above) {
    __m256i first = _mm256_castsi128_si256(load_half(above - (AHEAD - 1)));
    return _mm256_alignr_epi8(left, _mm256_permute2x128_si256(left, first, 0x02), 15);
}

/* The samples of a step. Of the left and the upper sample the lesser may lie below the corner, the greater beyond it.
   Paeth takes the lesser where the greater is at most half as far beyond as that is below, the greater likewise, else
   the corner; with 0 for what a filter does not look at, Sub and Up are the same. */
AVX2 INLINE __m256i undo_step(const Predictors *p, __m256i raw, __m256i a, __m256i b, __m256i c) {
    const __m256i one = _mm256_set1_epi8(1), zero = _mm256_setzero_si256();
    __m256i mean = _mm256_sub_epi8(_mm256_avg_epu8(a, b), _mm256_and_si256(_mm256_xor_si256(a, b), one));
    a = _mm256_and_si256(a, p->left), b = _mm256_and_si256(b, p->up), c = _mm256_and_si256(c, p->corner);
    raw = _mm256_add_epi8(_mm256_add_epi8(raw, c), _mm256_and_si256(mean, p->mean));
    __m256i below = _mm256_subs_epu8(c, _mm256_min_epu8(a, b)), beyond = _mm256_subs_epu8(_mm256_max_epu8(a, b), c);
    __m256i falls = _mm256_cmpeq_epi8(_mm256_subs_epu8(_mm256_adds_epu8(beyond, beyond), below), zero);
    __m256i rises = _mm256_cmpeq_epi8(_mm256_subs_epu8(_mm256_adds_epu8(below, below), beyond), zero);
    __m256i change = _mm256_sub_epi8(_mm256_and_si256(rises, beyond), _mm256_and_si256(falls, below));
    return _mm256_add_epi8(raw, change);
}

/* Steps `t` to `t` + 15. */
AVX2 INLINE void undo_block(Wave *wave, uint64_t t, const Predictors *p, Steps *steps, const int pixel,
                            const int opening) {
    __m256i v[STEPS], starts = _mm256_setzero_si256();
    for (int k = 0; k < STEPS; k++) {
        const uint8_t *low = wave->lanes[k] + (int64_t)t - pixel * k;
        const uint8_t *high = wave->lanes[k + STEPS] + (int64_t)t - pixel * (k + STEPS);
        v[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(low)), load_half(high), 1);
    }
    transpose(v);
    if (opening) {
        uint8_t first[LANES];
        for (int k = 0; k < LANES; k++) first[k] = (uint8_t)(pixel * k);
        starts = load_lanes(first);
    }
#pragma GCC unroll 16
    for (int i = 0; i < STEPS; i++) {
        const uint64_t step = t + (uint64_t)i;
        __m256i a = steps->left[i], b = upper(a, wave->above + AHEAD + step);
        v[i] = undo_step(p, v[i], a, b, steps->up[i]);
        if (opening) { /* rows that have not begun */
            __m256i waits = _mm256_subs_epu8(starts, _mm256_set1_epi8((char)step));
            __m256i begun = _mm256_cmpeq_epi8(waits, _mm256_setzero_si256());
            v[i] = _mm256_blendv_epi8(load_lanes(wave->left[step % (uint64_t)pixel]), v[i], begun);
        }
        steps->left[i + pixel] = v[i], steps->up[i + pixel] = b;
    }
    for (int i = 0; i < pixel; i++)
        steps->left[i] = steps->left[i + STEPS], steps->up[i] = steps->up[i + STEPS];
    transpose(v);
    for (int k = 0; k < STEPS; k++) {
        uint8_t *low = wave->rows[k] + BEFORE + (int64_t)t - pixel * k;
        uint8_t *high = wave->rows[k + STEPS] + BEFORE + (int64_t)t - pixel * (k + STEPS);
        _mm_storeu_si128((__m128i *)(void *)low, _mm256_castsi256_si128(v[k]));
        _mm_storeu_si128((__m128i *)(void *)high, _mm256_extracti128_si256(v[k], 1));
    }
}

AVX2 INLINE void undo_strip(Wave *wave, uint64_t n, const int pixel) {
    const uint64_t lag = (uint64_t)((LANES - 1) * pixel);
    const Predictors predictors = read_filters(wave->filters);
    Steps steps;
    for (int i = 0; i < pixel; i++) {
        steps.left[i] = load_lanes(wave->left[i]);
        steps.up[i] = upper(steps.left[i], wave->above + AHEAD - pixel + i);
    }
    uint64_t t = 0;
    for (; t < lag; t += STEPS) undo_block(wave, t, &predictors, &steps, pixel, 1);
    for (; t < n + lag; t += STEPS) undo_block(wave, t, &predictors, &steps, pixel, 0);
}

/* Point the lanes to `n` bytes from `x` on, of the `rows` rows from `y` on. */
static void lead_in(Wave *wave, const Image *image, uint64_t y, uint64_t rows, uint64_t x, uint64_t n) {
    const uint64_t step = image->row + 1, from = y * step + 1 + x, last = from + (LANES - 1) * step;
    /* a row is no shorter than a pixel: what a lane reads while it waits is of rows too */
    const int within = rows == LANES && image->length - last >= n + STEPS;
    if (!within) memset(wave->rows, 0, sizeof wave->rows);
    for (uint64_t k = 0; k < LANES; k++) {
        wave->lanes[k] = within ? image->rows + from + k * step : wave->rows[k] + BEFORE;
        if (!within && k < rows) memcpy(wave->rows[k] + BEFORE, image->rows + from + k * step, (size_t)n);
    }
}

AVX2 INLINE void undo_waves(const Image *image, Target *target, const int pixel) {
    Wave wave;
    const uint64_t bytes = (uint64_t)pixel;
    memset(wave.above, 0, sizeof wave.above);
    for (uint64_t y = 0; y < image->height; y += LANES) {
        const uint64_t rows = image->height - y < LANES ? image->height - y : LANES;
        memset(wave.filters, NONE, sizeof wave.filters);
        for (uint64_t k = 0; k < rows; k++) wave.filters[k] = *row_of(image, y + k);
        memset(wave.left, 0, sizeof wave.left);
        memset(wave.above, 0, AHEAD);
        for (uint64_t x = 0; x < image->row; x += STRIP) {
            const uint64_t n = image->row - x < STRIP ? image->row - x : STRIP, before = x ? bytes : 0;
            lead_in(&wave, image, y, rows, x, n);
            if (y) memcpy(wave.above + AHEAD - before, row_of(image, y - 1) + 1 + x - before, (size_t)(n + before));
            undo_strip(&wave, n, pixel);
            for (uint64_t k = 0; k < rows; k++)
                put_pixels(target, ((y + k) * image->row + x) / bytes, wave.rows[k] + BEFORE, n / bytes);
            /* what comes next depends on the last pixels, and on the last row */
            for (int i = 0; i < pixel && x + n < image->row; i++)
                for (int k = 0; k < LANES; k++) wave.left[i][k] = wave.rows[k][BEFORE + n - bytes + (uint64_t)i];
            memcpy(row_of(image, y + rows - 1) + 1 + x, wave.rows[rows - 1] + BEFORE, (size_t)n);
        }
    }
}

AVX2 static void undo_in_vectors(const Image *image, Target *target) {
    switch (image->pixel) {
    case 1: undo_waves(image, target, 1); break;
    case 2: undo_waves(image, target, 2); break;
    case 3: undo_waves(image, target, 3); break;
    case 4: undo_waves(image, target, 4); break;
    case 6: undo_waves(image, target, 6); break;
    default: undo_waves(image, target, 8); break;
    }
}

static int has_vectors(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
}

#else

static void undo_in_vectors(const Image *image, Target *target) { undo_plainly(image, target); }

static int has_vectors(void) { return 0; }

#endif

/* ---- all of it ---- */

EXPORT int storefs_png_interface(void) { return INTERFACE; }

/* Undo the filters of `height` rows of `width` pixels, `length` bytes with a filter in front of each row, and put the
   samples, of `bits` 8 or 16, to `shape` (channels, z, y, x) little-endian ones at `out`, `strides` bytes apart. Rows
   are changed on the way. `greatest` becomes the greatest filter; with UNKNOWN_FILTER nothing else was changed. */
EXPORT int storefs_png_unfilter(uint8_t *rows, uint64_t length, uint64_t height, uint64_t width, int bits, uint8_t *out,
                                const uint64_t shape[4], const int64_t strides[4], int how, int *greatest) {
    if (!rows || !out || !shape || !strides || !greatest) return MISUSED;
    const uint64_t c = shape[0], z = shape[1], y = shape[2], x = shape[3];
    if ((bits != 8 && bits != 16) || c < 1 || c > 4 || !z || !y || !x || !height || !width) return MISUSED;
    if (height > UINT32_MAX || width > UINT32_MAX / LARGEST) return MISUSED;
    const uint64_t pixels = height * width;
    if (pixels % z || pixels / z % y || pixels / z / y != x) return MISUSED;
    const int pixel = (int)c * bits / 8;
    Image image = {rows, length, height, width * (uint64_t)pixel, pixel};
    if (height * (image.row + 1) != length) return MISUSED;
    int most = 0;
    for (uint64_t k = 0; k < height; k++) most = *row_of(&image, k) > most ? *row_of(&image, k) : most;
    *greatest = most;
    if (most > PAETH) return UNKNOWN_FILTER;
    Target target = {out, c, y, x, strides[0], strides[1], strides[2], strides[3], bits / 8, 0, 0, 0, 0};
    if (how != PLAIN && has_vectors())
        undo_in_vectors(&image, &target);
    else
        undo_plainly(&image, &target);
    return 0;
}
