/* Fuzzes the kernel of DVID label blocks; README.md says how to run it.

   An input is a head of 16 bytes (extent, strides), then encoded bytes. Every buffer has its exact size, so that the
   sanitizers see each step beside it. */

#include <stdio.h>
#include <time.h>

#include "../../codecs/storefs_codecs/kernels/dvid_label_block.c"

enum { HEAD = 16, CANARY = 0xA5 };

typedef struct {
    uint64_t extent[3];
    int64_t strides[3];
    uint64_t bytes;  /* of the output */
    uint64_t origin; /* of voxel 0 in there; strides may be negative */
} Shape;

static void require(int truth, const char *what) {
    if (!truth) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static uint8_t *filled(uint64_t n, int byte) {
    uint8_t *at = malloc(n ? (size_t)n : 1);
    require(at != NULL, "memory");
    memset(at, byte, (size_t)n);
    return at;
}

/* Any head gives a shape of at most 3 x 3 x 3 sub-blocks. */
static Shape shape_of(const uint8_t head[HEAD]) {
    Shape s = {.bytes = LABEL};
    for (int axis = 0; axis < 3; axis++) s.extent[axis] = SIDE * (1u + head[axis] % 3);
    uint64_t step = LABEL + (head[6] & 1 ? head[7] % 9 : 0);
    for (int axis = 2; axis >= 0; axis--) { /* from the innermost outwards, with gaps and turned around */
        int turned = head[6] >> (2 + axis) & 1;
        s.strides[axis] = turned ? -(int64_t)step : (int64_t)step;
        if (turned) s.origin += (s.extent[axis] - 1) * step;
        s.bytes += (s.extent[axis] - 1) * step;
        step = step * s.extent[axis] + (head[6] & 2 ? head[8 + axis] % 5 : 0);
    }
    return s;
}

static uint64_t bits_at(const uint8_t *data, uint64_t bit, int bits) {
    uint64_t value = 0;
    for (; bits; bits--, bit++) value = value << 1 | (data[bit >> 3] >> (7 - (bit & 7)) & 1);
    return value;
}

/* What a plain reader of the format finds; the bytes are known to be good. */
static void plain_labels(const uint8_t *data, uint64_t length, const Shape *s, uint64_t *labels) {
    uint64_t gy = s->extent[1] / 8, gx = s->extent[2] / 8, blocks = s->extent[0] / 8 * gy * gx;
    uint64_t counts = 16 + 8 * (uint64_t)load32(data + 12), places = counts + 2 * blocks, codes = places;
    int solid = length == 24;
    if (!solid)
        for (uint64_t i = 0; i < blocks; i++) codes += 4 * bits_at(data, 8 * (counts + 2 * i), 8) +
                                                       4 * 256 * bits_at(data, 8 * (counts + 2 * i + 1), 8);
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t count = solid ? 1 : data[counts + 2 * i] + 256u * data[counts + 2 * i + 1];
        int bits = 0;
        while (count && (count - 1) >> bits) bits++;
        for (uint64_t voxel = 0; voxel < 512; voxel++) {
            uint64_t code = bits_at(data + codes, voxel * (uint64_t)bits, bits), label = 0;
            if (solid) label = load_label(data + 16, 8);
            else if (count) {
                uint64_t place = load32(data + places + 4 * code);
                require(code < count && count <= 512 && place < load32(data + 12), "lists and codes keep their bounds");
                label = load_label(data + 16 + 8 * place, 8);
            }
            uint64_t z = i / gx / gy * 8 + voxel / 64, y = i / gx % gy * 8 + voxel / 8 % 8, x = i % gx * 8 + voxel % 8;
            labels[x + s->extent[2] * (y + s->extent[1] * z)] = label;
        }
        if (!solid) places += 4 * count;
        codes += 64 * (uint64_t)bits;
    }
    require(solid || codes == length, "the plain reader ends where the data does");
}

static int decode(const Shape *s, const uint8_t *data, uint64_t length) {
    uint8_t *out = filled(s->bytes, CANARY);
    uint64_t culprit = 0, voxels = s->extent[0] * s->extent[1] * s->extent[2], i = 0;
    int problem = storefs_dvid_decode(data, length, s->extent, out + s->origin, s->strides, &culprit);
    require(problem != MISUSE && problem != NO_MEMORY, "a problem that can be named");
    if (problem)
        for (; i < s->bytes; i++) require(out[i] == CANARY, "nothing is written on a problem");
    else {
        uint64_t *labels = (uint64_t *)(void *)filled(8 * voxels, 0);
        plain_labels(data, length, s, labels);
        for (uint64_t z = 0; z < s->extent[0]; z++)
            for (uint64_t y = 0; y < s->extent[1]; y++)
                for (uint64_t x = 0; x < s->extent[2]; x++) {
                    const uint8_t *at = out + s->origin + (int64_t)z * s->strides[0] + (int64_t)y * s->strides[1] +
                                        (int64_t)x * s->strides[2];
                    require(load_label(at, 8) == labels[i++], "labels as a plain reader");
                }
        free(labels);
    }
    free(out);
    return problem;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    if (length < HEAD) return 0;
    Shape s = shape_of(input);
    uint8_t *data = filled(length - HEAD, 0);
    memcpy(data, input + HEAD, length - HEAD);
    decode(&s, data, length - HEAD);
    free(data);
    return 0;
}

#ifndef LIBFUZZER

static uint64_t state;

static uint64_t next(void) { return state = mix(state + 0x9e3779b97f4a7c15u); }

static uint64_t below(uint64_t n) { return next() % n; }

/* Random labels, some in runs, encoded; also with too little room. Gives the bytes, or 0 where it was refused. */
static uint64_t encode(const Shape *s, uint8_t **data) {
    uint64_t voxels = s->extent[0] * s->extent[1] * s->extent[2], kinds = (uint64_t)1 << below(15), written = 0;
    uint64_t *labels = (uint64_t *)(void *)filled(8 * voxels, 0);
    uint64_t label = 0, run = 1 + below(90), salt = next();
    kinds += below(kinds);
    for (uint64_t i = 0; i < voxels; i++) {
        if (!below(run)) label = mix(salt + below(kinds));
        store_label((uint8_t *)&labels[i], label, 8);
    }
    uint64_t capacity = below(8) ? 13 * voxels + 24 : below(1u << 10);
    uint8_t *out = filled(capacity, CANARY);
    int problem = storefs_dvid_encode((const uint8_t *)labels, s->extent, out, capacity, &written);
    require(!problem || (problem == MISUSE && written > capacity), "refused for want of room only");
    if (problem) written = 0;
    *data = filled(written, 0);
    if (!problem) {
        require(written <= capacity, "written within the capacity");
        for (uint64_t i = written; i < capacity; i++) require(out[i] == CANARY, "nothing beyond what was written");
        memcpy(*data, out, (size_t)written);
        uint64_t *found = (uint64_t *)(void *)filled(8 * voxels, 0), entries = load32(*data + 12);
        plain_labels(*data, written, s, found);
        for (uint64_t i = 0; i < voxels; i++)
            require(found[i] == load_label((const uint8_t *)&labels[i], 8), "round trip");
        for (uint64_t i = 1; i < entries; i++)
            require(load_label(*data + 8 + 8 * i, 8) < load_label(*data + 16 + 8 * i, 8), "an ascending table");
        require((entries == 1) == (written == 24), "24 bytes for one label");
        require(decode(s, *data, written) == 0, "what was encoded decodes");
        free(found);
    }
    free(out);
    free(labels);
    return written;
}

/* A block of consistent length with lists as no encoder makes them, a few of them too long or pointing too far. */
static uint64_t craft(const Shape *s, uint8_t **data) {
    static const uint16_t usual[] = {0, 0, 1, 1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 33, 64, 65, 100, 129, 256, 257, 511, 512};
    uint64_t blocks = s->extent[0] * s->extent[1] * s->extent[2] / VOXELS, entries = 1 + below(9);
    uint32_t counts[27];
    uint64_t length = 16 + 8 * entries + 2 * blocks, wrong = below(6) ? 0 : 1 + below(3);
    for (uint64_t i = 0; i < blocks; i++) {
        counts[i] = below(2) ? usual[below(22)] : (uint32_t)below(12);
        if (wrong == 1 && !below(blocks)) counts[i] = 513;
        length += 4 * counts[i] + 64 * (uint64_t)bits_for(counts[i]);
    }
    uint8_t *at = *data = filled(length, 0);
    for (int axis = 2; axis >= 0; axis--, at += 4) store32(at, (uint32_t)(s->extent[axis] / SIDE));
    store32(at, (uint32_t)entries);
    at += 4;
    for (uint64_t i = 0; i < entries; i++, at += 8) store_label(at, below(3) ? next() : below(3), 8);
    for (uint64_t i = 0; i < blocks; i++, at += 2) at[0] = (uint8_t)counts[i], at[1] = (uint8_t)(counts[i] >> 8);
    for (uint64_t i = 0; i < blocks; i++)
        for (uint32_t n = counts[i]; n; n--, at += 4)
            store32(at, (uint32_t)(wrong == 2 && !below(300) ? entries + below(2) : below(entries)));
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t bits = (uint64_t)bits_for(counts[i]);
        for (uint64_t voxel = 0; bits && voxel < 512; voxel++) {
            uint64_t code = wrong == 3 && !below(900) ? counts[i] : below(counts[i]);
            for (uint64_t k = 0, bit = voxel * bits; k < bits; k++, bit++)
                at[bit >> 3] |= (uint8_t)((code >> (bits - 1 - k) & 1) << (7 - (bit & 7)));
        }
        at += 64 * bits;
    }
    require(at == *data + length, "a block of the length announced");
    return length;
}

static void mutate(uint8_t *data, uint64_t *length, uint64_t blocks) {
    static const uint32_t odd[] = {0, 1, 2, 3, 511, 512, 513, 0xffff, 0xffffffff};
    for (uint64_t n = 1 + below(3); n && *length >= 8; n--) {
        uint64_t counts = 16 + 8 * (uint64_t)load32(data + 12), at = below(*length - 3);
        if (*length < HEADER || counts + 2 * blocks + 4 > *length) counts = 0;
        if (!below(4) && counts) at = counts + 2 * below(blocks); /* the counts steer most */
        else if (!below(12)) at = 4 * below(2 + (*length >= HEADER) * 2);
        else if (!below(4) && counts) at = counts + 2 * blocks;
        uint32_t value = load32(data + at), half = value & 0xffff0000;
        switch (below(8)) {
        case 0: data[at + below(4)] ^= (uint8_t)(1u << below(8)); break;
        case 1: data[at + below(4)] = (uint8_t)next(); break;
        case 2: store32(data + at, odd[below(9)]); break;
        case 3: store32(data + at, half | ((value + (uint32_t)below(5) - 2) & 0xffff)); break;
        case 4: store32(data + at, half | (odd[below(9)] & 0xffff)); break;
        case 5: data[at] ^= 1, data[at + 2 < *length ? at + 2 : at] ^= 1; break; /* counts that go on to sum up */
        case 6: if (at + 4 < *length) store32(data + at, value + 1), data[at + 2]--; break;
        default: if (!below(3)) *length -= below(*length < 80 ? *length : 80); break;
        }
    }
}

/* fuzz SECONDS [SEED]: random blocks, encoded, damaged and decoded. */
int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 10;
    state = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    uint64_t inputs = 0, encoded = 0, accepted = 0, problems[MISUSE + 1] = {0};
    for (time_t end = time(NULL) + (time_t)seconds; time(NULL) < end;) {
        uint8_t head[HEAD];
        for (int i = 0; i < HEAD; i++) head[i] = (uint8_t)next();
        Shape s = shape_of(head);
        uint64_t blocks = s.extent[0] * s.extent[1] * s.extent[2] / VOXELS;
        uint8_t *good;
        uint64_t whole = below(3) ? encode(&s, &good) : craft(&s, &good);
        encoded += whole > 0;
        for (int round = 0; round < 32; round++, inputs++) {
            uint64_t length = whole ? whole : 16 + below(300), extra = below(6) ? 0 : below(70);
            uint8_t *work = filled(length + extra, 0);
            if (whole)
                memcpy(work, good, (size_t)length);
            else {
                for (uint64_t i = 0; i < length; i++) work[i] = below(3) ? 0 : (uint8_t)next();
                for (int i = 0; i < 3 && below(9); i++) store32(work + 4 * i, (uint32_t)(s.extent[2 - i] / SIDE));
                if (below(9)) store32(work + 12, (uint32_t)below(9));
            }
            if (round)
                mutate(work, &length, blocks), length += extra;
            uint8_t *exact = filled(length + (round & 1), 0) + (round & 1);
            memcpy(exact, work, (size_t)length);
            int problem = decode(&s, exact, length);
            accepted += !problem;
            problems[problem]++;
            free(exact - (round & 1));
            free(work);
        }
        free(good);
    }
    printf("%llu damaged inputs, %llu of them decoded; %llu blocks made; refusals:", (unsigned long long)inputs,
           (unsigned long long)accepted, (unsigned long long)encoded);
    for (int problem = 1; problem <= MISUSE; problem++)
        printf(" %d: %llu", problem, (unsigned long long)problems[problem]);
    puts("");
    return 0;
}

#endif
