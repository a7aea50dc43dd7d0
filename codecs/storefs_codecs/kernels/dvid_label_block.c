/* DVID label blocks. The format is described in ../label_block_layout.py.

   Memory-safe for every input: all of it is proven before the first write, and all loads and stores are free of
   alignment. Triples are in C order, z y x. Nothing here keeps state, so any number of threads may call at once. */

#include "labels.h"

enum { INTERFACE = 1 }; /* raise with every change of a signature below */
enum { TOO_SHORT = 1, OTHER_SIZE, NO_LABELS, TOO_MANY, WRONG_LENGTH, PLACE_OUTSIDE, CODE_OUTSIDE, NO_MEMORY, MISUSE };
enum { SIDE = 8, VOXELS = 512, GROUP = 8, GROUPS = 64, MAX_SIDE = 1024, MAX_BITS = 9 };
enum { HEADER = 16, LABEL = 8, COUNT = 2, PLACE = 4 }; /* bytes */

typedef struct {
    uint64_t gz, gy, gx, blocks;
} Grid;

static int make_grid(Grid *grid, const uint64_t extent[3]) {
    for (int axis = 0; axis < 3; axis++)
        if (!extent[axis] || extent[axis] % SIDE || extent[axis] > MAX_SIDE) return MISUSE;
    *grid = (Grid){extent[0] / SIDE, extent[1] / SIDE, extent[2] / SIDE, 0};
    grid->blocks = grid->gz * grid->gy * grid->gx;
    return 0;
}

INLINE uint32_t load16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }

INLINE int bits_for(uint32_t count) {
    int bits = 0;
    while (count > (uint32_t)1 << bits) bits++;
    return bits;
}

/* Eight codes that begin at a byte. */
INLINE void load_group(uint32_t codes[GROUP], const uint8_t *at, const int bits) {
    const uint64_t mask = ((uint64_t)1 << bits) - 1;
    uint64_t packed = 0;
    const int whole = bits < 8 ? bits : 8;
    for (int i = 0; i < whole; i++) packed = packed << 8 | at[i];
    if (bits <= 8) {
        for (int k = 0; k < GROUP; k++) codes[k] = (uint32_t)(packed >> (bits * (GROUP - 1 - k)) & mask);
    } else { /* nine bits each: the last one lies across the ninth byte */
        for (int k = 0; k < GROUP - 1; k++) codes[k] = (uint32_t)(packed >> (64 - bits * (k + 1)) & mask);
        codes[GROUP - 1] = (uint32_t)(packed & 1) << 8 | at[8];
    }
}

INLINE void store_group(uint8_t *at, const uint32_t codes[GROUP], const int bits) {
    const int whole = bits < 8 ? bits : 8;
    uint64_t packed = 0;
    if (bits <= 8)
        for (int k = 0; k < GROUP; k++) packed = packed << bits | codes[k];
    else {
        for (int k = 0; k < GROUP - 1; k++) packed = packed << bits | codes[k];
        packed = packed << 1 | codes[GROUP - 1] >> 8;
        at[8] = (uint8_t)codes[GROUP - 1];
    }
    for (int i = 0; i < whole; i++) at[i] = (uint8_t)(packed >> (8 * (whole - 1 - i)));
}

/* Calls a function of code width with that width as a constant. */
#define WITH_BITS(bits, call) \
    switch (bits) {           \
    case 1: call(1); break;   \
    case 2: call(2); break;   \
    case 3: call(3); break;   \
    case 4: call(4); break;   \
    case 5: call(5); break;   \
    case 6: call(6); break;   \
    case 7: call(7); break;   \
    case 8: call(8); break;   \
    default: call(9); break;  \
    }

/* ---- decoding ---- */

typedef struct {
    const uint8_t *table, *counts, *places, *codes;
    uint64_t labels, listed;
} Block;

/* Find the parts and prove that they end where the data does. A solid block has no counts. */
static int find_parts(Block *block, const uint8_t *data, uint64_t length, const Grid *grid, uint64_t *culprit) {
    *block = (Block){.table = data + HEADER};
    *culprit = HEADER;
    if (length < HEADER) return TOO_SHORT;
    if (load32(data) != grid->gx || load32(data + 4) != grid->gy || load32(data + 8) != grid->gz) return OTHER_SIZE;
    block->labels = load32(data + 12);
    if (!block->labels) return NO_LABELS;
    *culprit += block->labels * LABEL;
    if (length < *culprit) return TOO_SHORT;
    if (block->labels == 1 && length == *culprit) return 0;
    block->counts = data + *culprit;
    *culprit += grid->blocks * COUNT;
    if (length < *culprit) return TOO_SHORT;
    uint64_t end = *culprit;
    for (uint64_t i = 0; i < grid->blocks; i++) {
        uint32_t count = load16(block->counts + i * COUNT);
        if (count > VOXELS) {
            *culprit = i;
            return TOO_MANY;
        }
        block->listed += count;
        end += (uint64_t)(GROUPS * bits_for(count));
    }
    end += block->listed * PLACE;
    block->places = data + *culprit;
    *culprit = end;
    if (length != end) return WRONG_LENGTH;
    block->codes = block->places + block->listed * PLACE;
    return 0;
}

INLINE uint32_t greatest_code(const uint8_t *codes, const int bits) {
    uint32_t greatest = 0, group[GROUP];
    for (int i = 0; i < GROUPS; i++) {
        load_group(group, codes + i * bits, bits);
        for (int k = 0; k < GROUP; k++) greatest = group[k] > greatest ? group[k] : greatest;
    }
    return greatest;
}

static int check_lists(const Block *block, const Grid *grid, uint64_t *culprit) {
    for (uint64_t i = 0; i < block->listed; i++)
        if (load32(block->places + i * PLACE) >= block->labels) {
            *culprit = i;
            return PLACE_OUTSIDE;
        }
    const uint8_t *codes = block->codes;
    for (uint64_t i = 0; i < grid->blocks; i++) {
        uint32_t count = load16(block->counts + i * COUNT), greatest = 0;
        int bits = bits_for(count);
        if (count < (uint32_t)1 << bits && bits) {
#define CHECK(constant) greatest = greatest_code(codes, constant)
            WITH_BITS(bits, CHECK)
            if (greatest >= count) {
                *culprit = i;
                return CODE_OUTSIDE;
            }
        }
        codes += GROUPS * bits;
    }
    return 0;
}

/* Labels are moved as they are, in the byte order of the data. */
INLINE void decode_codes(uint8_t *out, const int64_t strides[3], int64_t step, const uint8_t *codes,
                         const uint64_t *labels, const int bits) {
    uint32_t group[GROUP];
    for (int z = 0; z < SIDE; z++)
        for (int y = 0; y < SIDE; y++, codes += bits) {
            uint8_t *row = out + z * strides[0] + y * strides[1];
            load_group(group, codes, bits);
            for (int k = 0; k < GROUP; k++) memcpy(row + k * step, &labels[group[k]], LABEL);
        }
}

INLINE void fill(uint8_t *out, const int64_t strides[3], int64_t step, uint64_t label) {
    for (int z = 0; z < SIDE; z++)
        for (int y = 0; y < SIDE; y++) {
            uint8_t *row = out + z * strides[0] + y * strides[1];
            for (int k = 0; k < SIDE; k++) memcpy(row + k * step, &label, LABEL);
        }
}

INLINE void decode_parts(const Block *block, const Grid *grid, uint8_t *out, const int64_t strides[3], int64_t step) {
    const uint8_t *counts = block->counts, *places = block->places, *codes = block->codes;
    uint64_t labels[VOXELS] = {0};
    if (!counts) memcpy(labels, block->table, LABEL);
    for (uint64_t z = 0; z < grid->gz; z++)
        for (uint64_t y = 0; y < grid->gy; y++)
            for (uint64_t x = 0; x < grid->gx; x++) {
                uint8_t *at = out + SIDE * ((int64_t)z * strides[0] + (int64_t)y * strides[1] + (int64_t)x * step);
                uint32_t count = 1;
                if (counts) {
                    count = load16(counts);
                    counts += COUNT;
                    labels[0] = 0;
                    for (uint32_t i = 0; i < count; i++, places += PLACE)
                        memcpy(&labels[i], block->table + (uint64_t)load32(places) * LABEL, LABEL);
                }
                int bits = bits_for(count);
                if (!bits)
                    fill(at, strides, step, labels[0]);
                else {
#define DECODE(constant) decode_codes(at, strides, step, codes, labels, constant)
                    WITH_BITS(bits, DECODE)
                }
                codes += GROUPS * bits;
            }
}

EXPORT int storefs_dvid_interface(void) { return INTERFACE; }

/* Decode the label block in `length` bytes at `data` into 64-bit labels at `out`, `strides` bytes apart. On a problem
   nothing is written and `*culprit` is the length needed, or the number of the sub-block or list entry. */
EXPORT int storefs_dvid_decode(const uint8_t *data, uint64_t length, const uint64_t extent[3], uint8_t *out,
                               const int64_t strides[3], uint64_t *culprit) {
    Grid grid;
    Block block;
    if (make_grid(&grid, extent)) return MISUSE;
    int problem = find_parts(&block, data, length, &grid, culprit);
    if (!problem && block.counts) problem = check_lists(&block, &grid, culprit);
    if (problem) return problem;
    if (strides[2] == LABEL)
        decode_parts(&block, &grid, out, strides, LABEL);
    else
        decode_parts(&block, &grid, out, strides, strides[2]);
    return 0;
}

/* ---- encoding ---- */

enum { SLOTS = 2 * VOXELS };

typedef struct {
    uint64_t *lists;  /* the labels of every sub-block, ascending */
    uint8_t *counts;  /* bytes as they will be written, as are: */
    uint8_t *codes;
    uint64_t listed, packed; /* how much of lists and codes there is */
    Entry *entries;          /* the table */
    uint32_t *slots;         /* hash of labels: place in `entries` + 1, 0 is free */
    uint64_t mask, found;
} Encoder;

/* Number the labels of a sub-block in order of first appearance; gives how many there are. Most rows hold none but
   the last two labels seen, and are numbered without a branch. */
static uint32_t find_labels(Entry entries[VOXELS], uint16_t seen[VOXELS], const uint8_t *in,
                            const int64_t strides[3]) {
    uint16_t slots[SLOTS] = {0};
    Entry last = {~load_label(in, LABEL), 0}, other = last;
    uint32_t found = 0;
    for (int z = 0; z < SIDE; z++)
        for (int y = 0; y < SIDE; y++, seen += SIDE) {
            const uint8_t *row = in + z * strides[0] + y * strides[1];
            int familiar = 1;
            for (int x = 0; x < SIDE; x++) {
                uint64_t label = load_label(row + x * LABEL, LABEL);
                familiar &= (label == last.label) | (label == other.label);
                seen[x] = (uint16_t)(label == last.label ? last.seen : other.seen);
            }
            for (int x = 0; x < SIDE && !familiar; x++) {
                uint64_t label = load_label(row + x * LABEL, LABEL);
                if (label != last.label) {
                    uint64_t slot = mix(label) % SLOTS;
                    while (slots[slot] && entries[slots[slot] - 1].label != label) slot = (slot + 1) % SLOTS;
                    if (!slots[slot]) {
                        entries[found] = (Entry){label, found};
                        slots[slot] = (uint16_t)++found;
                    }
                    other = last;
                    last = entries[slots[slot] - 1];
                }
                seen[x] = (uint16_t)last.seen;
            }
        }
    return found;
}

INLINE void pack(uint8_t *out, const uint16_t seen[VOXELS], const uint32_t rank[VOXELS], const int bits) {
    uint32_t group[GROUP];
    for (int i = 0; i < GROUPS; i++, out += bits, seen += GROUP) {
        for (int k = 0; k < GROUP; k++) group[k] = rank[seen[k]];
        store_group(out, group, bits);
    }
}

INLINE int is_constant(const uint8_t *in, const int64_t strides[3]) {
    uint64_t first = load_label(in, LABEL), differing = 0;
    for (int z = 0; z < SIDE && !differing; z++)
        for (int y = 0; y < SIDE; y++) {
            const uint8_t *row = in + z * strides[0] + y * strides[1];
            for (int x = 0; x < SIDE; x++) differing |= load_label(row + x * LABEL, LABEL) ^ first;
        }
    return !differing;
}

/* Append the list and the codes of one sub-block; gives the length of the list. */
static uint32_t encode_codes(Encoder *to, const uint8_t *in, const int64_t strides[3]) {
    if (is_constant(in, strides)) {
        to->lists[to->listed++] = load_label(in, LABEL);
        return 1;
    }
    Entry entries[VOXELS];
    uint16_t seen[VOXELS];
    uint32_t rank[VOXELS], count = find_labels(entries, seen, in, strides);
    sort_entries(entries, count);
    for (uint32_t i = 0; i < count; i++) {
        rank[entries[i].seen] = i;
        to->lists[to->listed++] = entries[i].label;
    }
    int bits = bits_for(count);
#define PACK(constant) pack(to->codes + to->packed, seen, rank, constant)
    WITH_BITS(bits, PACK)
    to->packed += (uint64_t)(GROUPS * bits);
    return count;
}

/* The slot of a label in the table, or the free one where it belongs. */
INLINE uint64_t slot_of(const Encoder *to, uint64_t label) {
    uint64_t slot = mix(label) & to->mask;
    while (to->slots[slot] && to->entries[to->slots[slot] - 1].label != label) slot = (slot + 1) & to->mask;
    return slot;
}

/* Gather the labels of all lists into the table, where each list entry then has its place, and write everything. */
static int write_parts(Encoder *to, const Grid *grid, uint8_t *out, uint64_t capacity, uint64_t *written) {
    for (uint64_t i = 0; i < to->listed; i++) {
        uint64_t slot = slot_of(to, to->lists[i]);
        if (!to->slots[slot]) {
            to->entries[to->found] = (Entry){to->lists[i], (uint32_t)to->found};
            to->slots[slot] = (uint32_t)++to->found;
        }
        to->lists[i] = to->slots[slot] - 1;
    }
    int solid = to->found == 1;
    *written = HEADER + to->found * LABEL;
    if (!solid) *written += grid->blocks * COUNT + to->listed * PLACE + to->packed;
    if (*written > capacity) return MISUSE;
    uint32_t head[4] = {(uint32_t)grid->gx, (uint32_t)grid->gy, (uint32_t)grid->gz, (uint32_t)to->found};
    for (int i = 0; i < 4; i++, out += 4) store32(out, head[i]);
    uint32_t *rank = to->slots; /* from `seen` to the place in the sorted table; the hash has done its work */
    sort_entries(to->entries, to->found);
    for (uint64_t i = 0; i < to->found; i++, out += LABEL) {
        rank[to->entries[i].seen] = (uint32_t)i;
        store_label(out, to->entries[i].label, LABEL);
    }
    if (solid) return 0;
    memcpy(out, to->counts, (size_t)(grid->blocks * COUNT));
    out += grid->blocks * COUNT;
    for (uint64_t i = 0; i < to->listed; i++, out += PLACE) store32(out, rank[to->lists[i]]);
    memcpy(out, to->codes, (size_t)to->packed);
    return 0;
}

static int encode_parts(Encoder *to, const Grid *grid, const uint8_t *in, const int64_t strides[3]) {
    uint8_t *count = to->counts;
    for (uint64_t z = 0; z < grid->gz; z++)
        for (uint64_t y = 0; y < grid->gy; y++)
            for (uint64_t x = 0; x < grid->gx; x++, count += COUNT) {
                const uint8_t *from =
                    in + SIDE * ((int64_t)z * strides[0] + (int64_t)y * strides[1] + (int64_t)x * LABEL);
                uint32_t found = encode_codes(to, from, strides);
                count[0] = (uint8_t)found;
                count[1] = (uint8_t)(found >> 8);
            }
    to->mask = power_of_two(2 * to->listed) - 1;
    to->entries = malloc((size_t)to->listed * sizeof *to->entries);
    to->slots = calloc((size_t)to->mask + 1, sizeof *to->slots);
    return to->entries && to->slots ? 0 : NO_MEMORY;
}

/* Encode 64-bit labels at `in` (C-contiguous) into at most `capacity` bytes at `out`. */
EXPORT int storefs_dvid_encode(const uint8_t *in, const uint64_t extent[3], uint8_t *out, uint64_t capacity,
                               uint64_t *written) {
    Grid grid;
    if (make_grid(&grid, extent)) return MISUSE;
    const int64_t strides[3] = {(int64_t)(extent[1] * extent[2]) * LABEL, (int64_t)extent[2] * LABEL, LABEL};
    if (grid.blocks > SIZE_MAX / (32 * VOXELS)) return NO_MEMORY;
    Encoder to = {.lists = malloc((size_t)grid.blocks * VOXELS * sizeof *to.lists),
                  .counts = malloc((size_t)grid.blocks * COUNT),
                  .codes = malloc((size_t)grid.blocks * GROUPS * MAX_BITS)};
    int problem = NO_MEMORY;
    if (to.lists && to.counts && to.codes) problem = encode_parts(&to, &grid, in, strides);
    if (!problem) problem = write_parts(&to, &grid, out, capacity, written);
    free(to.lists);
    free(to.counts);
    free(to.codes);
    free(to.entries);
    free(to.slots);
    return problem;
}
