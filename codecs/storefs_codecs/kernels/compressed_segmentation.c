/* compressed_segmentation, one channel at a time. The format is described in ../segmentation_blocks.py.

   Memory-safe for every input: offsets are proven before the first write, arithmetic is 64-bit and saturates where
   a block size could overflow it, and all loads and stores are free of alignment. Triples are in C order, z y x.
   Nothing here keeps state, so any number of threads may call at once. */

#include "labels.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { INTERFACE = 2 }; /* raise with every change of a signature below */
enum { NO_SUCH_WIDTH = 1, VALUES_OUTSIDE, TABLE_OUTSIDE, INDEX_OUTSIDE, TOO_FAR, NO_MEMORY, MISUSE, BEYOND };

static const uint64_t MAX_OFFSET = ((uint64_t)1 << 24) - 1;
#ifndef CACHED
#define CACHED (16 << 20) /* bytes of a result that stay in the caches */
#endif
static const uint64_t FAR = (uint64_t)1 << 58; /* a voxel number no data can reach; times 32 it fits 64 bits */

INLINE uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t capped_product(uint64_t a, uint64_t b) {
    return a && b > FAR / a ? FAR : a * b;
}

static uint64_t capped_sum(uint64_t a, uint64_t b) { return smaller(a + b, FAR); /* both are at most FAR */ }

/* One block: how much of it lies inside the chunk, and the steps of its voxel number along y and z. */
typedef struct {
    uint64_t z, y, x;           /* voxels inside the chunk */
    uint64_t step_y, step_z;    /* may have wrapped where there is no step to make */
    uint64_t last;              /* greatest voxel number inside, at most FAR */
} Extent;

typedef struct {
    uint64_t gz, gy, gx;
    Extent kinds[8]; /* bit 2: clipped in z, bit 1: in y, bit 0: in x */
} Grid;

static int make_grid(Grid *grid, const uint64_t extent[3], const uint64_t block[3]) {
    uint64_t counts[3], sizes[2][3];
    for (int axis = 0; axis < 3; axis++) {
        if (!extent[axis] || !block[axis] || extent[axis] > FAR || block[axis] > FAR) return MISUSE;
        counts[axis] = (extent[axis] - 1) / block[axis] + 1;
        sizes[0][axis] = block[axis];
        sizes[1][axis] = extent[axis] - (counts[axis] - 1) * block[axis]; /* the last block, maybe whole */
    }
    grid->gz = counts[0], grid->gy = counts[1], grid->gx = counts[2];
    for (int kind = 0; kind < 8; kind++) {
        Extent *e = &grid->kinds[kind];
        e->z = sizes[kind >> 2 & 1][0], e->y = sizes[kind >> 1 & 1][1], e->x = sizes[kind & 1][2];
        e->step_y = block[2];
        e->step_z = block[1] * block[2];
        uint64_t y = capped_product(e->y - 1, block[2]);
        uint64_t z = capped_product(e->z - 1, capped_product(block[1], block[2]));
        e->last = capped_sum(capped_sum(e->x - 1, y), z);
    }
    return 0;
}

INLINE const Extent *extent_of(const Grid *grid, uint64_t z, uint64_t y, uint64_t x) {
    return &grid->kinds[(z + 1 == grid->gz) << 2 | (y + 1 == grid->gy) << 1 | (x + 1 == grid->gx)];
}

INLINE uint32_t index_at(const uint8_t *values, const int bits, uint64_t bit) {
    return load32(values + 4 * (bit >> 5)) >> (bit & 31) & (uint32_t)(((uint64_t)1 << bits) - 1);
}

/* ---- decoding ---- */

typedef struct {
    const uint8_t *data;
    uint64_t words;
    int size;
} Channel;

static int check_header(const Channel *in, const uint8_t *header, const Extent *e) {
    uint64_t table = load32(header) & MAX_OFFSET, values = load32(header + 4);
    int bits = header[3];
    if (bits > 32 || (bits & (bits - 1))) return NO_SUCH_WIDTH;
    if (bits) {
        uint64_t needed = ((uint64_t)bits * e->last >> 5) + 1;
        if (needed > in->words || values > in->words - needed) return VALUES_OUTSIDE;
    }
    if (table + (uint64_t)in->size / 4 > in->words) return TABLE_OUTSIDE;
    return 0;
}

/* Below this all indices of a block lie inside the data. */
INLINE uint64_t room_of(const Channel *in, const uint8_t *header) {
    return (in->words - (load32(header) & MAX_OFFSET)) / ((uint64_t)in->size / 4);
}

/* Where the data ends before the greatest possible index, look at every index. */
static int check_indices(const Channel *in, const uint8_t *header, const Extent *e) {
    uint64_t room = room_of(in, header);
    int bits = header[3];
    if (room >= (uint64_t)1 << bits) return 0;
    const uint8_t *values = in->data + 4 * (uint64_t)load32(header + 4);
    uint32_t greatest = 0;
    for (uint64_t z = 0; z < e->z; z++)
        for (uint64_t y = 0; y < e->y; y++) {
            uint64_t bit = (uint64_t)bits * (z * e->step_z + y * e->step_y);
            for (uint64_t x = 0; x < e->x; x++, bit += (uint64_t)bits) {
                uint32_t index = index_at(values, bits, bit);
                greatest = index > greatest ? index : greatest;
            }
        }
    return greatest < room ? 0 : INDEX_OUTSIDE;
}

/* Prove all headers of the blocks from `from` to below `to`, then all their indices. */
static int check_blocks(const Channel *in, const Grid *grid, const uint64_t from[3], const uint64_t to[3],
                        uint64_t *culprit) {
    for (int indices = 0; indices < 2; indices++)
        for (uint64_t z = from[0]; z < to[0]; z++)
            for (uint64_t y = from[1]; y < to[1]; y++) {
                uint64_t number = (z * grid->gy + y) * grid->gx + from[2];
                const uint8_t *header = in->data + 8 * number;
                for (uint64_t x = from[2]; x < to[2]; x++, header += 8, number++) {
                    const Extent *e = extent_of(grid, z, y, x);
                    int problem = (indices ? check_indices : check_header)(in, header, e);
                    if (problem) {
                        *culprit = number;
                        return problem;
                    }
                }
            }
    return 0;
}

/* Eight indices that begin at a byte, as one little-endian number (bits <= 8). */
INLINE uint64_t load_eight(const uint8_t *at, const int bits) {
    if (bits == 8) return load32(at) | (uint64_t)load32(at + 4) << 32;
    if (bits == 4) return load32(at);
    if (bits == 2) return (uint64_t)at[0] | (uint64_t)at[1] << 8;
    return at[0];
}

/* Eight labels of 64 bits, a whole cache line, past the caches: nobody reads them soon, and what is in there stays. */
#if defined(__SSE2__)
enum { STREAMS = 1 };

INLINE void stream_pair(uint8_t *out, uint64_t first, uint64_t second) {
    _mm_stream_si128((__m128i *)(void *)out, _mm_set_epi64x((int64_t)second, (int64_t)first));
}

INLINE void stream_done(void) { _mm_sfence(); }
#else
enum { STREAMS = 0 };

INLINE void stream_pair(uint8_t *out, uint64_t first, uint64_t second) {
    store_label(out, first, 8);
    store_label(out + 8, second, 8);
}

INLINE void stream_done(void) {}
#endif

INLINE void stream_row(uint8_t *out, const uint8_t *values, uint64_t bit, const uint8_t *table, const int bits) {
    const uint64_t mask = ((uint64_t)1 << bits) - 1;
    uint64_t eight = bits ? load_eight(values + (bit >> 3), bits) : 0;
    for (int k = 0; k < 8; k += 2)
        stream_pair(out + 8 * k, load_label(table + (eight >> (k * bits) & mask) * 8, 8),
                    load_label(table + (eight >> ((k + 1) * bits) & mask) * 8, 8));
}

/* `n` voxels from `bit` on, `apart` voxels from one to the next. */
INLINE void decode_row(uint8_t *out, int64_t step, uint64_t n, const uint8_t *values, uint64_t bit, uint64_t apart,
                       const uint8_t *table, const int bits, const int size) {
    const uint64_t mask = ((uint64_t)1 << bits) - 1;
    uint64_t x = 0;
    if (apart == 1 && bits <= 8 && !(bit & 7)) {
        const uint8_t *from = values + (bit >> 3);
        for (; x + 8 <= n; x += 8, from += bits, out += 8 * step) {
            uint64_t eight = load_eight(from, bits);
            for (int k = 0; k < 8; k++)
                memcpy(out + k * step, table + (eight >> (k * bits) & mask) * (uint64_t)size, (size_t)size);
        }
    }
    for (bit += x * (uint64_t)bits; x < n; x++, bit += apart * (uint64_t)bits, out += step)
        memcpy(out, table + (uint64_t)index_at(values, bits, bit) * (uint64_t)size, (size_t)size);
}

INLINE void fill_row(uint8_t *out, int64_t step, uint64_t n, const uint8_t *table, const int size) {
    uint64_t label = 0;
    memcpy(&label, table, (size_t)size);
    for (uint64_t x = 0; x < n; x++, out += step) memcpy(out, &label, (size_t)size);
}

/* The voxels of a block from voxel number `first` on, as many as `e` has, in its steps and `apart` along x. */
INLINE void decode_rows(uint8_t *out, const int64_t strides[3], int64_t step, const Extent *e, uint64_t first,
                        uint64_t apart, const uint8_t *values, const uint8_t *table, const int bits, const int size,
                        int stream) {
    if (stream && bits <= 8 && size == 8) {
        for (uint64_t z = 0; z < e->z; z++)
            for (uint64_t y = 0; y < e->y; y++)
                stream_row(out + (int64_t)z * strides[0] + (int64_t)y * strides[1], values,
                           (uint64_t)bits * (z * e->step_z + y * e->step_y), table, bits);
        return;
    }
    for (uint64_t z = 0; z < e->z; z++)
        for (uint64_t y = 0; y < e->y; y++) {
            uint8_t *row = out + (int64_t)z * strides[0] + (int64_t)y * strides[1];
            uint64_t bit = (uint64_t)bits * (first + z * e->step_z + y * e->step_y);
            if (!bits && e->x == 8) /* let the compiler unroll the common block */
                fill_row(row, step, 8, table, size);
            else if (!bits)
                fill_row(row, step, e->x, table, size);
            else if (e->x == 8)
                decode_row(row, step, 8, values, bit, apart, table, bits, size);
            else
                decode_row(row, step, e->x, values, bit, apart, table, bits, size);
        }
}

INLINE void decode_block(const Channel *in, const uint8_t *header, uint8_t *out, const int64_t strides[3],
                         int64_t step, const Extent *e, uint64_t first, uint64_t apart, const int size, int stream) {
    const uint8_t *table = in->data + 4 * (load32(header) & MAX_OFFSET);
    const uint8_t *values = header[3] ? in->data + 4 * (uint64_t)load32(header + 4) : table;
    switch (header[3]) {
    case 0: decode_rows(out, strides, step, e, first, apart, values, table, 0, size, stream); break;
    case 1: decode_rows(out, strides, step, e, first, apart, values, table, 1, size, stream); break;
    case 2: decode_rows(out, strides, step, e, first, apart, values, table, 2, size, stream); break;
    case 4: decode_rows(out, strides, step, e, first, apart, values, table, 4, size, stream); break;
    case 8: decode_rows(out, strides, step, e, first, apart, values, table, 8, size, stream); break;
    case 16: decode_rows(out, strides, step, e, first, apart, values, table, 16, size, stream); break;
    default: decode_rows(out, strides, step, e, first, apart, values, table, 32, size, stream); break;
    }
}

/* Whether every row of a whole block is one cache line of a result that does not stay in the caches anyway. */
static int streams(const uint64_t block[3], const Grid *grid, const uint8_t *out, const int64_t strides[3],
                   int64_t step, int size) {
    int64_t planes = (int64_t)((grid->gz - 1) * block[0] + grid->kinds[7].z);
    return STREAMS && size == 8 && step == 8 && block[2] == 8 && !((uintptr_t)out & 63) && !(strides[0] & 63) &&
           !(strides[1] & 63) && strides[0] > 0 && planes > CACHED / strides[0];
}

INLINE void decode_blocks(const Channel *in, const Grid *grid, const uint64_t block[3], uint8_t *out,
                          const int64_t strides[3], int64_t step, const int size) {
    const int stream = streams(block, grid, out, strides, step, size);
    const uint8_t *header = in->data;
    for (uint64_t z = 0; z < grid->gz; z++)
        for (uint64_t y = 0; y < grid->gy; y++) {
            uint8_t *row = out + (int64_t)(z * block[0]) * strides[0] + (int64_t)(y * block[1]) * strides[1];
            for (uint64_t x = 0; x < grid->gx; x++, header += 8)
                decode_block(in, header, row + (int64_t)(x * block[2]) * step, strides, step,
                             extent_of(grid, z, y, x), 0, 1, size, stream && (x + 1 < grid->gx || grid->kinds[7].x == 8));
        }
    if (stream) stream_done();
}

EXPORT int storefs_cseg_interface(void) { return INTERFACE; }

/* Decode the channel in `words` 32-bit words at `data` (headers first, to the end of the file) into labels of `size`
   bytes at `out`, `strides` bytes apart. On a problem nothing is written and `*culprit` is the number of the block. */
EXPORT int storefs_cseg_decode(const uint8_t *data, uint64_t words, const uint64_t extent[3],
                               const uint64_t block[3], int size, uint8_t *out, const int64_t strides[3],
                               uint64_t *culprit) {
    Channel in = {data, words, size};
    Grid grid;
    if ((size != 4 && size != 8) || make_grid(&grid, extent, block)) return MISUSE;
    if (capped_product(2, capped_product(capped_product(grid.gz, grid.gy), grid.gx)) > words) return MISUSE;
    const uint64_t none[3] = {0, 0, 0}, all[3] = {grid.gz, grid.gy, grid.gx};
    int problem = check_blocks(&in, &grid, none, all, culprit);
    if (problem) return problem;
    if (size == 8 && strides[2] == 8)
        decode_blocks(&in, &grid, block, out, strides, 8, 8);
    else if (size == 4 && strides[2] == 4)
        decode_blocks(&in, &grid, block, out, strides, 4, 4);
    else if (size == 8)
        decode_blocks(&in, &grid, block, out, strides, strides[2], 8);
    else
        decode_blocks(&in, &grid, block, out, strides, strides[2], 4);
    return 0;
}

/* ---- decoding a part ---- */

/* How many of `left` voxels, `step` apart from `at` on, lie in the same block. */
INLINE uint64_t run(uint64_t at, uint64_t step, uint64_t left, uint64_t block) {
    return smaller(left, (block - 1 - at % block) / step + 1);
}

INLINE void decode_box(const Channel *in, const Grid *grid, const uint64_t block[3], const uint64_t start[3],
                       const uint64_t step[3], const uint64_t count[3], uint8_t *out, const int64_t strides[3],
                       int64_t along, const int size) {
    Extent e = {.step_z = step[0] * (block[1] * block[2]), .step_y = step[1] * block[2]};
    for (uint64_t i = 0; i < count[0]; i += e.z) {
        uint64_t z = start[0] + i * step[0];
        e.z = run(z, step[0], count[0] - i, block[0]);
        for (uint64_t j = 0; j < count[1]; j += e.y) {
            uint64_t y = start[1] + j * step[1];
            e.y = run(y, step[1], count[1] - j, block[1]);
            uint8_t *row = out + (int64_t)i * strides[0] + (int64_t)j * strides[1];
            const uint8_t *headers = in->data + 8 * ((z / block[0] * grid->gy + y / block[1]) * grid->gx);
            uint64_t first = (z % block[0] * block[1] + y % block[1]) * block[2];
            for (uint64_t k = 0; k < count[2]; k += e.x) {
                uint64_t x = start[2] + k * step[2];
                e.x = run(x, step[2], count[2] - k, block[2]);
                decode_block(in, headers + 8 * (x / block[2]), row + (int64_t)k * along, strides, along, &e,
                             first + x % block[2], step[2], size, 0);
            }
        }
    }
}

/* Of the channel that `storefs_cseg_decode` takes, `count` voxels along each axis, `step` apart from `start` on. The
   blocks from the first to the last of them are proven as there, others are not looked at. On a problem nothing is
   written. */
EXPORT int storefs_cseg_decode_box(const uint8_t *data, uint64_t words, const uint64_t extent[3],
                                   const uint64_t block[3], int size, const uint64_t start[3],
                                   const uint64_t step[3], const uint64_t count[3], uint8_t *out,
                                   const int64_t strides[3], uint64_t *culprit) {
    Channel in = {data, words, size};
    Grid grid;
    uint64_t from[3], to[3];
    if ((size != 4 && size != 8) || make_grid(&grid, extent, block)) return MISUSE;
    if (capped_product(2, capped_product(capped_product(grid.gz, grid.gy), grid.gx)) > words) return MISUSE;
    for (int axis = 0; axis < 3; axis++) {
        if (!count[axis] || !step[axis]) return MISUSE;
        if (start[axis] >= extent[axis] || count[axis] - 1 > (extent[axis] - 1 - start[axis]) / step[axis])
            return BEYOND;
        from[axis] = start[axis] / block[axis];
        to[axis] = (start[axis] + (count[axis] - 1) * step[axis]) / block[axis] + 1;
    }
    int problem = check_blocks(&in, &grid, from, to, culprit);
    if (problem) return problem;
    if (size == 8 && strides[2] == 8)
        decode_box(&in, &grid, block, start, step, count, out, strides, 8, 8);
    else if (size == 4 && strides[2] == 4)
        decode_box(&in, &grid, block, start, step, count, out, strides, 4, 4);
    else if (size == 8)
        decode_box(&in, &grid, block, start, step, count, out, strides, strides[2], 8);
    else
        decode_box(&in, &grid, block, start, step, count, out, strides, strides[2], 4);
    return 0;
}

INLINE uint64_t coordinate(const void *points, uint64_t i) {
    uint64_t at;
    memcpy(&at, (const uint8_t *)points + 8 * i, sizeof at);
    return at;
}

/* Of the same channel the `n` voxels at `points[axis][i]`, side by side. The headers of their blocks are proven as
   there, and their own indices; on a problem `out` is undefined. */
EXPORT int storefs_cseg_decode_points(const uint8_t *data, uint64_t words, const uint64_t extent[3],
                                      const uint64_t block[3], int size, uint64_t n, const void *const points[3],
                                      uint8_t *out, uint64_t *culprit) {
    Channel in = {data, words, size};
    Grid grid;
    if ((size != 4 && size != 8) || make_grid(&grid, extent, block)) return MISUSE;
    if (capped_product(2, capped_product(capped_product(grid.gz, grid.gy), grid.gx)) > words) return MISUSE;
    for (int axis = 0; axis < 3; axis++)
        for (uint64_t i = 0; i < n; i++)
            if (coordinate(points[axis], i) >= extent[axis]) return BEYOND; /* negative ones, too */
    for (uint64_t i = 0; i < n; i++, out += size) {
        uint64_t at[3], cell[3];
        for (int axis = 0; axis < 3; axis++) {
            at[axis] = coordinate(points[axis], i);
            cell[axis] = at[axis] / block[axis];
            at[axis] %= block[axis];
        }
        uint64_t number = (cell[0] * grid.gy + cell[1]) * grid.gx + cell[2];
        const uint8_t *header = data + 8 * number;
        int problem = check_header(&in, header, extent_of(&grid, cell[0], cell[1], cell[2]));
        uint32_t index = 0;
        if (!problem && header[3]) {
            uint64_t bit = header[3] * ((at[0] * block[1] + at[1]) * block[2] + at[2]);
            index = index_at(data + 4 * (uint64_t)load32(header + 4), header[3], bit);
            if (index >= room_of(&in, header)) problem = INDEX_OUTSIDE;
        }
        if (problem) {
            *culprit = number;
            return problem;
        }
        memcpy(out, data + 4 * ((load32(header) & MAX_OFFSET) + (uint64_t)index * (uint64_t)size / 4), (size_t)size);
    }
    return 0;
}

/* ---- encoding ---- */

typedef struct {
    uint64_t hash, place, words; /* words == 0: free */
} Table;

typedef struct {
    Entry *entries;   /* the labels of the block at hand */
    uint32_t *seen;   /* for every voxel the `seen` of its label */
    uint32_t *rank;   /* from `seen` to the index in the sorted table */
    uint32_t *slots;  /* hash of labels: place in `entries` + 1, 0 is free */
    uint64_t slot_mask;
    Table *tables;    /* hash of the tables written so far */
    uint64_t table_mask;
    uint8_t *out;
    uint64_t capacity, end; /* words */
} Encoder;

INLINE int is_constant(const uint8_t *in, const int64_t strides[3], const Extent *e, const int size) {
    uint64_t first = load_label(in, size), differing = 0;
    for (uint64_t z = 0; z < e->z && !differing; z++)
        for (uint64_t y = 0; y < e->y; y++) {
            const uint8_t *row = in + (int64_t)z * strides[0] + (int64_t)y * strides[1];
            for (uint64_t x = 0; x < e->x; x++) differing |= load_label(row + x * (uint64_t)size, size) ^ first;
        }
    return !differing;
}

/* Number the labels of a block in order of first appearance; gives how many there are. */
INLINE uint64_t find_labels(Encoder *to, const uint8_t *in, const int64_t strides[3], const Extent *e,
                            const int size) {
    uint64_t mask = smaller(to->slot_mask, power_of_two(2 * e->z * e->y * e->x) - 1), found = 0;
    memset(to->slots, 0, (size_t)(mask + 1) * sizeof *to->slots);
    uint64_t previous = ~load_label(in, size);
    uint32_t number = 0, *seen = to->seen;
    for (uint64_t z = 0; z < e->z; z++)
        for (uint64_t y = 0; y < e->y; y++) {
            const uint8_t *row = in + (int64_t)z * strides[0] + (int64_t)y * strides[1];
            for (uint64_t x = 0; x < e->x; x++) {
                uint64_t label = load_label(row + x * (uint64_t)size, size);
                if (label != previous) {
                    uint64_t slot = mix(label) & mask;
                    while (to->slots[slot] && to->entries[to->slots[slot] - 1].label != label)
                        slot = (slot + 1) & mask;
                    if (!to->slots[slot]) {
                        to->entries[found] = (Entry){label, (uint32_t)found};
                        to->slots[slot] = (uint32_t)++found;
                    }
                    number = to->slots[slot] - 1;
                    previous = label;
                }
                *seen++ = number;
            }
        }
    return found;
}

/* The words at `to->end` hold the indices of the block; everything else in there is 0. */
INLINE void pack(Encoder *to, const Extent *e, const int bits) {
    uint8_t *values = to->out + 4 * to->end;
    const uint32_t *seen = to->seen;
    for (uint64_t z = 0; z < e->z; z++)
        for (uint64_t y = 0; y < e->y; y++) {
            uint64_t bit = (uint64_t)bits * (z * e->step_z + y * e->step_y);
            uint8_t *word = values + 4 * (bit >> 5);
            int shift = (int)(bit & 31);
            uint32_t packed = shift ? load32(word) : 0;
            for (uint64_t x = 0; x < e->x; x++) {
                packed |= to->rank[*seen++] << shift;
                shift += bits;
                if (shift == 32) {
                    store32(word, packed);
                    word += 4, packed = 0, shift = 0;
                }
            }
            if (shift) store32(word, packed);
        }
}

/* Sort the `found` labels and write the values of the block. */
static int write_values(Encoder *to, const Extent *e, uint64_t found, int bits, uint64_t block_voxels) {
    sort_entries(to->entries, found);
    for (uint64_t i = 0; i < found; i++) to->rank[to->entries[i].seen] = (uint32_t)i;
    uint64_t words = ((uint64_t)bits * block_voxels + 31) >> 5;
    if (to->end > MAX_OFFSET || words > MAX_OFFSET) return TOO_FAR;
    if (words > to->capacity - to->end) return MISUSE;
    memset(to->out + 4 * to->end, 0, (size_t)(4 * words));
    switch (bits) {
    case 1: pack(to, e, 1); break;
    case 2: pack(to, e, 2); break;
    case 4: pack(to, e, 4); break;
    case 8: pack(to, e, 8); break;
    case 16: pack(to, e, 16); break;
    default: pack(to, e, 32); break;
    }
    to->end += words;
    return 0;
}

/* The place of the table of the `found` labels, which is written unless it stands somewhere already. */
static int place_table(Encoder *to, uint64_t found, const int size, uint64_t *place) {
    uint64_t words = found * (uint64_t)size / 4, hash = found;
    for (uint64_t i = 0; i < found; i++) hash = mix(hash ^ to->entries[i].label) + i;
    uint64_t slot = hash & to->table_mask;
    for (; to->tables[slot].words; slot = (slot + 1) & to->table_mask) {
        const Table *table = &to->tables[slot];
        if (table->hash != hash || table->words != words) continue;
        const uint8_t *at = to->out + 4 * table->place;
        uint64_t same = 0;
        while (same < found && load_label(at + same * (uint64_t)size, size) == to->entries[same].label) same++;
        if (same == found) {
            *place = table->place;
            return 0;
        }
    }
    if (to->end > MAX_OFFSET) return TOO_FAR;
    if (words > to->capacity - to->end) return MISUSE;
    for (uint64_t i = 0; i < found; i++)
        store_label(to->out + 4 * to->end + i * (uint64_t)size, to->entries[i].label, size);
    to->tables[slot] = (Table){hash, to->end, words};
    *place = to->end;
    to->end += words;
    return 0;
}

INLINE int encode_block(Encoder *to, uint8_t *header, const uint8_t *in, const int64_t strides[3],
                        const Extent *e, uint64_t block_voxels, const int size) {
    uint64_t found = 1, values = to->end, place;
    int bits = 0, problem;
    if (is_constant(in, strides, e, size))
        to->entries[0] = (Entry){load_label(in, size), 0};
    else {
        found = find_labels(to, in, strides, e, size);
        for (bits = 1; bits < 32 && found > (uint64_t)1 << bits;) bits *= 2;
        if ((problem = write_values(to, e, found, bits, block_voxels))) return problem;
    }
    if ((problem = place_table(to, found, size, &place))) return problem;
    store32(header, (uint32_t)place | (uint32_t)bits << 24);
    store32(header + 4, (uint32_t)values);
    return 0;
}

static int encode_blocks(Encoder *to, const Grid *grid, const uint64_t block[3], const uint8_t *in,
                         const int64_t strides[3], int size) {
    uint64_t voxels = capped_product(capped_product(block[0], block[1]), block[2]);
    uint8_t *header = to->out;
    for (uint64_t z = 0; z < grid->gz; z++)
        for (uint64_t y = 0; y < grid->gy; y++)
            for (uint64_t x = 0; x < grid->gx; x++, header += 8) {
                const uint8_t *from = in + (int64_t)(z * block[0]) * strides[0] +
                                      (int64_t)(y * block[1]) * strides[1] + (int64_t)(x * block[2]) * size;
                const Extent *e = extent_of(grid, z, y, x);
                int problem = size == 8 ? encode_block(to, header, from, strides, e, voxels, 8)
                                        : encode_block(to, header, from, strides, e, voxels, 4);
                if (problem) return problem;
            }
    return 0;
}

/* Encode labels of `size` bytes at `in` (C-contiguous) into at most `capacity` words at `out`. */
EXPORT int storefs_cseg_encode(const uint8_t *in, const uint64_t extent[3], const uint64_t block[3], int size,
                               uint8_t *out, uint64_t capacity, uint64_t *written) {
    Grid grid;
    if ((size != 4 && size != 8) || make_grid(&grid, extent, block)) return MISUSE;
    const int64_t strides[3] = {(int64_t)(extent[1] * extent[2]) * size, (int64_t)extent[2] * size, size};
    uint64_t blocks = grid.gz * grid.gy * grid.gx;
    uint64_t most = smaller(extent[0], block[0]) * smaller(extent[1], block[1]) * smaller(extent[2], block[2]);
    if (2 * blocks > capacity) return MISUSE;
    if (most >= UINT32_MAX || most > SIZE_MAX / 64 || blocks > SIZE_MAX / 128) return NO_MEMORY;
    Encoder to = {.slot_mask = power_of_two(2 * most) - 1,
                  .table_mask = power_of_two(2 * blocks) - 1,
                  .out = out,
                  .capacity = capacity,
                  .end = 2 * blocks};
    to.entries = malloc((size_t)most * sizeof *to.entries);
    to.seen = malloc((size_t)most * sizeof *to.seen);
    to.rank = malloc((size_t)most * sizeof *to.rank);
    to.slots = malloc((size_t)(to.slot_mask + 1) * sizeof *to.slots);
    to.tables = calloc((size_t)to.table_mask + 1, sizeof *to.tables);
    int problem = NO_MEMORY;
    if (to.entries && to.seen && to.rank && to.slots && to.tables)
        problem = encode_blocks(&to, &grid, block, in, strides, size);
    free(to.entries);
    free(to.seen);
    free(to.rank);
    free(to.slots);
    free(to.tables);
    *written = to.end;
    return problem;
}
