/* Fuzzes the compressed_segmentation kernel; README.md says how to run it.

   An input is a head of 32 bytes (extent, block size, strides, label size; from byte 16 on a box and points in it), then
   encoded bytes. Every buffer has its exact size, so that the sanitizers see each step beside it. */

#define _POSIX_C_SOURCE 200112L

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CACHED 100 /* small results, too, go past the caches */
#include "../../codecs/storefs_codecs/kernels/compressed_segmentation.c"

enum { HEAD = 32, PART = 16, CANARY = 0xA5, LINE = 64 };

typedef struct {
    uint64_t extent[3], block[3];
    int size;
    int64_t strides[3];
    uint64_t bytes;   /* of the output */
    uint64_t origin;  /* of voxel 0 in there; strides may be negative */
} Shape;

static void require(int truth, const char *what) {
    if (!truth) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static uint8_t *filled(uint64_t n, int byte) {
    void *memory = NULL;
    require(!posix_memalign(&memory, LINE, n ? (size_t)n : 1), "memory");
    uint8_t *at = memory;
    memset(at, byte, (size_t)n);
    return at;
}

static void lay_out(Shape *s, const uint8_t *head);

/* Any head gives a shape of at most 24 x 24 x 24 voxels. */
static Shape shape_of(const uint8_t head[HEAD]) {
    static const uint64_t vast[] = {1u << 20, 1u << 31, (uint64_t)1 << 32, (uint64_t)1 << 40, (uint64_t)1 << 57,
                                    (uint64_t)1 << 58};
    Shape s = {.size = head[6] & 1 ? 8 : 4};
    for (int axis = 0; axis < 3; axis++) {
        s.extent[axis] = 1 + head[axis] % 24;
        s.block[axis] = head[3 + axis] < 232 ? 1u + head[3 + axis] % 20 : vast[head[3 + axis] % 6];
    }
    if (head[6] & 64) s.size = 8, s.block[2] = 8;
    lay_out(&s, head);
    return s;
}

/* How an output of the extent lies in memory. */
static void lay_out(Shape *s, const uint8_t *head) {
    s->origin = s->bytes = 0;
    if (head[6] & 64) { /* rows of whole lines */
        s->strides[2] = 8;
        s->strides[1] = LINE * (int64_t)((s->extent[2] + 7) / 8 + head[8] % 2);
        s->strides[0] = s->strides[1] * (int64_t)(s->extent[1] + head[9] % 2);
        s->bytes = 8;
        for (int axis = 0; axis < 3; axis++) s->bytes += (s->extent[axis] - 1) * (uint64_t)s->strides[axis];
        return;
    }
    uint64_t step = (uint64_t)s->size + (head[6] & 2 ? head[7] % 9 : 0);
    for (int axis = 2; axis >= 0; axis--) { /* from the innermost outwards, with gaps and turned around */
        int turned = head[6] >> (2 + axis) & 1;
        s->strides[axis] = turned ? -(int64_t)step : (int64_t)step;
        if (turned) s->origin += (s->extent[axis] - 1) * step;
        s->bytes += (s->extent[axis] - 1) * step;
        step = step * s->extent[axis] + (head[6] & 2 ? head[8 + axis] % 5 : 0);
    }
    s->bytes += (uint64_t)s->size;
}

/* What a plain reader of the format finds; the bytes are known to be good. */
static uint64_t plain_label(const uint8_t *data, const Shape *s, uint64_t z, uint64_t y, uint64_t x) {
    const uint64_t *b = s->block;
    uint64_t gy = (s->extent[1] - 1) / b[1] + 1, gx = (s->extent[2] - 1) / b[2] + 1;
    const uint8_t *header = data + 8 * (x / b[2] + gx * (y / b[1] + gy * (z / b[0])));
    uint64_t index = 0, p = x % b[2] + b[2] * (y % b[1] + b[1] * (z % b[0]));
    if (header[3]) {
        uint64_t bit = header[3] * p;
        index = load32(data + 4 * (load32(header + 4) + (bit >> 5))) >> (bit & 31);
        index &= ((uint64_t)1 << header[3]) - 1;
    }
    return load_label(data + 4 * (load32(header) & MAX_OFFSET) + index * (uint64_t)s->size, s->size);
}

static int decode_whole(const Shape *s, const uint8_t *data, uint64_t words) {
    uint8_t *out = filled(s->bytes, CANARY);
    uint64_t culprit = 0;
    int problem = storefs_cseg_decode(data, words, s->extent, s->block, s->size, out + s->origin, s->strides, &culprit);
    if (problem)
        for (uint64_t i = 0; i < s->bytes; i++) require(out[i] == CANARY, "nothing is written on a problem");
    else
        for (uint64_t z = 0; z < s->extent[0]; z++)
            for (uint64_t y = 0; y < s->extent[1]; y++)
                for (uint64_t x = 0; x < s->extent[2]; x++) {
                    const uint8_t *at = out + s->origin + (int64_t)z * s->strides[0] + (int64_t)y * s->strides[1] +
                                        (int64_t)x * s->strides[2];
                    require(load_label(at, s->size) == plain_label(data, s, z, y, x), "labels as a plain reader");
                }
    free(out);
    return problem;
}

/* A box, now and then one that does not lie inside. `whole` is what decoding all of the chunk found. */
static void decode_part(const Shape *s, const uint8_t *data, uint64_t words, const uint8_t part[PART], int whole) {
    uint64_t start[3], step[3];
    Shape box = *s;
    int inside = 1, empty = 0;
    for (int axis = 0; axis < 3; axis++) {
        uint64_t n = s->extent[axis];
        start[axis] = part[axis] < 250 ? part[axis] % n : part[axis] % (n + 2);
        step[axis] = part[3 + axis] < 250 ? 1u + (part[3 + axis] & 64 ? part[3 + axis] % 30 : 0)
                                          : (uint64_t)part[3 + axis] - 255; /* vast ones and 0 */
        uint64_t most = start[axis] < n && step[axis] ? (n - 1 - start[axis]) / step[axis] + 1 : 1;
        box.extent[axis] = part[12] ? 1 + part[6 + axis] % most : part[6 + axis] % (most + 2);
        if (part[6 + axis] & 128 && part[12]) box.extent[axis] = most;
        empty |= !box.extent[axis] || !step[axis];
        inside &= start[axis] < n && box.extent[axis] <= most;
    }
    uint64_t count[3] = {box.extent[0], box.extent[1], box.extent[2]};
    for (int axis = 0; axis < 3; axis++) box.extent[axis] += !count[axis];
    lay_out(&box, part);
    uint8_t *out = filled(box.bytes, CANARY);
    uint64_t culprit = 0;
    int problem = storefs_cseg_decode_box(data, words, s->extent, s->block, s->size, start, step, count,
                                          out + box.origin, box.strides, &culprit);
    require((problem >= MISUSE) == (empty || !inside || whole == MISUSE), "boxes outside are refused, no others");
    require(whole || problem == 0 || problem >= MISUSE, "a part of what decodes decodes");
    if (problem)
        for (uint64_t i = 0; i < box.bytes; i++) require(out[i] == CANARY, "nothing is written on a problem");
    else
        for (uint64_t z = 0; z < count[0]; z++)
            for (uint64_t y = 0; y < count[1]; y++)
                for (uint64_t x = 0; x < count[2]; x++) {
                    const uint8_t *at = out + box.origin + (int64_t)z * box.strides[0] +
                                        (int64_t)y * box.strides[1] + (int64_t)x * box.strides[2];
                    require(load_label(at, s->size) == plain_label(data, s, start[0] + z * step[0],
                                                                   start[1] + y * step[1], start[2] + x * step[2]),
                            "labels of a box as a plain reader");
                }
    free(out);
}

/* Points, now and then some outside. */
static void decode_points(const Shape *s, const uint8_t *data, uint64_t words, const uint8_t part[PART], int whole) {
    uint64_t n = part[13] % 12, salt = part[14] | (uint64_t)part[15] << 8;
    uint8_t *points[3];
    int inside = 1;
    for (int axis = 0; axis < 3; axis++) {
        points[axis] = filled(8 * n + 1, 0) + (part[12] & 1); /* also at an odd address */
        for (uint64_t i = 0; i < n; i++) {
            uint64_t drawn = mix(salt * 64 + i * 4 + (uint64_t)axis + 1);
            uint64_t at = drawn >> 8 & 255 ? drawn % s->extent[axis] : s->extent[axis] + drawn % 3 - 1;
            if (!(drawn >> 16 & 1023)) at = (uint64_t)-1 - drawn % 3;
            inside &= at < s->extent[axis];
            memcpy(points[axis] + 8 * i, &at, 8);
        }
    }
    const void *given[3] = {points[0], points[1], points[2]};
    uint8_t *out = filled(n * (uint64_t)s->size, CANARY);
    uint64_t culprit = 0;
    int problem = storefs_cseg_decode_points(data, words, s->extent, s->block, s->size, n, given, out, &culprit);
    require((problem >= MISUSE) == (!inside || whole == MISUSE), "points outside are refused, no others");
    require(whole || problem == 0 || problem >= MISUSE, "points of what decodes decode");
    for (uint64_t i = 0; i < n && !problem; i++) {
        uint64_t at[3];
        for (int axis = 0; axis < 3; axis++) memcpy(&at[axis], points[axis] + 8 * i, 8);
        require(load_label(out + i * (uint64_t)s->size, s->size) == plain_label(data, s, at[0], at[1], at[2]),
                "labels of points as a plain reader");
    }
    free(out);
    for (int axis = 0; axis < 3; axis++) free(points[axis] - (part[12] & 1));
}

static int decode(const Shape *s, const uint8_t *data, uint64_t words, const uint8_t part[PART]) {
    int problem = decode_whole(s, data, words);
    decode_part(s, data, words, part, problem);
    decode_points(s, data, words, part, problem);
    return problem;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    if (length < HEAD) return 0;
    Shape s = shape_of(input);
    uint64_t words = (length - HEAD) / 4;
    uint8_t *data = filled(4 * words + 1, 0) + (input[15] & 1); /* also at an odd address */
    memcpy(data, input + HEAD, (size_t)(4 * words));
    decode(&s, data, words, input + PART);
    free(data - (input[15] & 1));
    return 0;
}

#ifndef LIBFUZZER

static uint64_t state;

static uint64_t next(void) { return state = mix(state + 0x9e3779b97f4a7c15u); }

static uint64_t below(uint64_t n) { return next() % n; }

static int decode_randomly(const Shape *s, const uint8_t *data, uint64_t words) {
    uint8_t part[PART];
    for (int i = 0; i < PART; i++) part[i] = (uint8_t)next();
    return decode(s, data, words, part);
}

/* Random labels, some in runs, encoded; also with too little room. Gives the words, or 0 where it was refused. */
static uint64_t encode(const Shape *s, uint8_t **data) {
    uint64_t voxels = s->extent[0] * s->extent[1] * s->extent[2], kinds = (uint64_t)1 << below(13), written = 0;
    uint8_t *labels = filled(voxels * (uint64_t)s->size, 0);
    uint64_t label = 0, run = 1 + below(9), salt = next();
    for (uint64_t i = 0; i < voxels; i++) {
        if (!below(run)) label = mix(salt + below(kinds));
        store_label(labels + i * (uint64_t)s->size, label, s->size);
    }
    uint64_t capacity = below(8) ? 1u << 17 : below(1u << 10);
    uint8_t *out = filled(4 * capacity, CANARY);
    int problem = storefs_cseg_encode(labels, s->extent, s->block, s->size, out, capacity, &written);
    *data = filled(4 * written, 0);
    if (!problem) {
        require(written <= capacity, "written within the capacity");
        memcpy(*data, out, (size_t)(4 * written));
        for (uint64_t i = 0; i < voxels; i++) {
            uint64_t x = i % s->extent[2], y = i / s->extent[2] % s->extent[1], z = i / s->extent[2] / s->extent[1];
            require(plain_label(*data, s, z, y, x) == load_label(labels + i * (uint64_t)s->size, s->size), "round trip");
        }
        require(decode_randomly(s, *data, written) == 0, "what was encoded decodes");
    }
    free(out);
    free(labels);
    return problem ? 0 : written;
}

static void mutate(uint8_t *data, uint64_t *words) {
    static const uint32_t odd[] = {0, 1, 0xffffffff, 0x00ffffff, 0x20000000, 0x10000000, 0x01000000, 0x21000000};
    for (uint64_t n = 1 + below(4); n && *words; n--) {
        uint64_t at = 4 * (below(2) ? below(*words) : below(smaller(*words, 8)));
        switch (below(7)) {
        case 0: data[at + below(4)] ^= (uint8_t)(1u << below(8)); break;
        case 1: data[at + below(4)] = (uint8_t)next(); break;
        case 2: store32(data + at, odd[below(8)]); break;
        case 3: store32(data + at, load32(data + at) + (uint32_t)below(9) - 4); break;
        case 4: data[at + 3] = (uint8_t)(1u << below(6)); break;
        case 5: store32(data + at, (uint32_t)(*words - below(smaller(*words, 4) + 1))); break;
        default: *words -= below(smaller(*words, 5)); break;
        }
    }
}

/* fuzz SECONDS [SEED]: random chunks, encoded, damaged and decoded. */
int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 10;
    state = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    uint64_t inputs = 0, encoded = 0, accepted = 0, problems[MISUSE + 1] = {0};
    for (time_t end = time(NULL) + (time_t)seconds; time(NULL) < end;) {
        uint8_t head[HEAD];
        for (int i = 0; i < HEAD; i++) head[i] = (uint8_t)next();
        Shape s = shape_of(head);
        uint8_t *good;
        uint64_t words = encode(&s, &good);
        encoded += words > 0;
        for (int round = 0; round < 32; round++, inputs++) {
            uint64_t length = words ? words : below(64);
            uint8_t *work = filled(4 * length, 0);
            if (words)
                memcpy(work, good, (size_t)(4 * length));
            else
                for (uint64_t i = 0; i < 4 * length; i++) work[i] = below(3) ? 0 : (uint8_t)next();
            mutate(work, &length);
            uint8_t *exact = filled(4 * length + 1, 0) + (round & 1);
            memcpy(exact, work, (size_t)(4 * length));
            int problem = decode_randomly(&s, exact, length);
            accepted += !problem;
            problems[problem]++;
            free(exact - (round & 1));
            free(work);
        }
        free(good);
    }
    printf("%llu damaged inputs, %llu of them decoded; %llu chunks encoded; refusals:", (unsigned long long)inputs,
           (unsigned long long)accepted, (unsigned long long)encoded);
    for (int problem = 1; problem <= MISUSE; problem++)
        printf(" %d: %llu", problem, (unsigned long long)problems[problem]);
    puts("");
    return 0;
}

#endif
