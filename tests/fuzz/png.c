/* Fuzzes the PNG kernel; README.md says how to run it.

   An input is a head of 16 bytes (what image it is and how the array lies in memory), then its filtered rows. Every
   buffer has its exact size, so that the sanitizers see each step beside it, and what lies between the samples must
   stay as it is. What comes out is compared with a plain reader, which predicts byte by byte as the format's text has
   it. With vectors and without, the kernel must do the same. */

#include <stdio.h>
#include <time.h>

#include "../../codecs/storefs_codecs/kernels/png.c"

enum { HEAD = 16, CANARY = 0xA5 };

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

/* ---- one input ---- */

typedef struct {
    uint64_t height, width, shape[4], bytes, origin;
    int64_t strides[4];
    int bits;
} Case;

static uint64_t length_of(const Case *c) {
    return c->height * (1 + c->width * c->shape[0] * (uint64_t)c->bits / 8);
}

static Case read_case(const uint8_t head[HEAD]) {
    Case c = {.height = 1 + head[0] % 80, .width = 1 + head[1] % 24, .bits = head[2] & 1 ? 8 : 16};
    if (head[3] % 64 == 0) c.width = 1 + (head[1] << 2 | head[4] % 4) % 600, c.height = 1 + head[0] % 70;
    c.shape[0] = head[2] & 2 ? 1 : 1 + (head[2] >> 2) % 4;
    uint64_t left = c.height * c.width;
    for (int axis = 3; axis > 1; axis--) {
        uint64_t n = axis == 3 && head[5] & 1 ? c.width : 1 + (uint64_t)head[6 + axis] % 40;
        if (left % n) n = left % 7 ? 1 : 7;
        c.shape[axis] = n, left /= n;
    }
    c.shape[1] = left;
    /* axes in any order, with gaps, forwards and backwards */
    int order[4] = {3, 2, 1, 0};
    for (int i = 3; i; i--) {
        int k = head[10] >> i & 1 ? head[11] % (i + 1) : i, axis = order[i];
        order[i] = order[k], order[k] = axis;
    }
    uint64_t step = (uint64_t)c.bits / 8;
    c.bytes = step;
    for (int i = 0; i < 4; i++) {
        int axis = order[i];
        if (head[12] >> i & 1) step += 1 + head[13] % 5;
        c.strides[axis] = (int64_t)step;
        c.bytes += (c.shape[axis] - 1) * step;
        if (head[14] >> i & 1) c.origin += (c.shape[axis] - 1) * step, c.strides[axis] = -(int64_t)step;
        step *= c.shape[axis];
    }
    return c;
}

/* The samples where they belong in `out`; the greatest filter. */
static int plain(const Case *c, const uint8_t *rows, uint8_t *out) {
    const uint64_t size = (uint64_t)c->bits / 8, pixel = size * c->shape[0], n = c->width * pixel;
    int greatest = 0;
    for (uint64_t y = 0; y < c->height; y++) greatest = rows[y * (n + 1)] > greatest ? rows[y * (n + 1)] : greatest;
    if (greatest > 4) return greatest;
    uint8_t *known = filled(c->height * n, 0);
    for (uint64_t y = 0; y < c->height; y++)
        for (uint64_t x = 0; x < n; x++) {
            int a = x < pixel ? 0 : known[y * n + x - pixel], b = y ? known[(y - 1) * n + x] : 0, predicted = 0;
            int corner = x < pixel || !y ? 0 : known[(y - 1) * n + x - pixel], p = a + b - corner;
            switch (rows[y * (n + 1)]) {
            case 1: predicted = a; break;
            case 2: predicted = b; break;
            case 3: predicted = (a + b) / 2; break;
            case 4:
                predicted = abs(p - a) <= abs(p - b) && abs(p - a) <= abs(p - corner) ? a
                            : abs(p - b) <= abs(p - corner)                           ? b
                                                                                      : corner;
            }
            uint8_t byte = known[y * n + x] = (uint8_t)(rows[y * (n + 1) + 1 + x] + predicted);
            uint64_t number = y * c->width + x / pixel, channel = x % pixel / size;
            uint64_t row = number / c->shape[3], place[4] = {channel, row / c->shape[2], row % c->shape[2],
                                                             number % c->shape[3]};
            int64_t at = (int64_t)c->origin + (int64_t)(size - 1 - x % size); /* the first byte is the high one */
            for (int axis = 0; axis < 4; axis++) at += (int64_t)place[axis] * c->strides[axis];
            out[at] = byte;
        }
    free(known);
    return greatest;
}

/* Whether the `length` bytes at `rows` were an image with good filters. */
static int decode(const uint8_t head[HEAD], const uint8_t *rows, uint64_t length) {
    Case c = read_case(head);
    uint8_t *expected = filled(c.bytes, CANARY);
    const int whole = length == length_of(&c), greatest = whole ? plain(&c, rows, expected) : 0;
    for (int how = 0; how < 2; how++) {
        uint8_t *out = filled(c.bytes, CANARY), *work = filled(length, 0);
        memcpy(work, rows, (size_t)length);
        int found = -1;
        int problem = storefs_png_unfilter(work, length, c.height, c.width, c.bits, out + c.origin, c.shape, c.strides,
                                           how ? PLAIN : USUAL, &found);
        require(problem == (!whole ? MISUSED : greatest > 4 ? UNKNOWN_FILTER : 0), "the right verdict");
        require(!whole || found == greatest, "the greatest filter");
        require(!memcmp(out, expected, (size_t)c.bytes), "samples as a plain reader, and nothing beside them");
        require(!problem || !memcmp(work, rows, (size_t)length), "rows stay as they are where they are refused");
        free(out);
        free(work);
    }
    free(expected);
    return whole && greatest <= 4;
}

/* Sizes that cannot be: none of them may be read or written by. */
static void misuse(const uint8_t head[HEAD]) {
    static const uint64_t odd[] = {0, 1, 2, UINT32_MAX, (uint64_t)1 << 32, (uint64_t)1 << 62, UINT64_MAX, 536870911};
    Case c = read_case(head);
    const uint64_t length = length_of(&c);
    uint64_t *changed[] = {&c.height, &c.width, c.shape, c.shape + 1, c.shape + 2, c.shape + 3};
    Case was = c;
    for (int i = 0; i < 6; i++)
        if (head[15] >> i & 1) *changed[i] = odd[head[i] % 8];
    if (head[15] & 64) c.bits = head[7];
    uint8_t *work = filled(length, 0), out = 0;
    int found = -1, how = head[6] & 1;
    int without_rows = storefs_png_unfilter(NULL, length, was.height, was.width, was.bits, &out, was.shape, was.strides,
                                            how, &found);
    int without_room = storefs_png_unfilter(work, length, was.height, was.width, was.bits, NULL, was.shape, was.strides,
                                            how, &found);
    require(without_rows == MISUSED && without_room == MISUSED, "there must be rows and room");
    was.width += (uint64_t)1 << 63;
    if (was.height % 2 == 0) /* products are the same in 64 bits */
        require(storefs_png_unfilter(work, length, was.height, was.width, was.bits, &out, was.shape, was.strides, how,
                                     &found) == MISUSED, "products that overflow are refused");
    /* other shapes of as many samples are good ones, but there is no room for them here */
    if (c.shape[1] * c.shape[2] * c.shape[3] != c.height * c.width || length_of(&c) != length)
        require(storefs_png_unfilter(work, length, c.height, c.width, c.bits, &out, c.shape, c.strides, how, &found) ==
                    MISUSED, "impossible sizes are refused");
    free(work);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    if (length >= HEAD) decode(input, input + HEAD, length - HEAD);
    return 0;
}

#ifndef LIBFUZZER

static uint64_t state;

static uint64_t next(void) { return state = mix(state + 0x9e3779b97f4a7c15u); }

static uint64_t below(uint64_t n) { return next() % n; }

/* fuzz SECONDS [SEED]: random rows, whole and of another length, with good filters and others. */
int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 10;
    state = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    uint64_t inputs = 0, decoded = 0;
    for (time_t end = time(NULL) + (time_t)seconds; time(NULL) < end;)
        for (int round = 0; round < 64; round++, inputs++) {
            uint8_t head[HEAD];
            for (int i = 0; i < HEAD; i++) head[i] = (uint8_t)next();
            if (below(4)) head[0] %= 1 + below(40), head[1] %= 1 + below(8);
            if (!below(16)) misuse(head);
            Case c = read_case(head);
            uint64_t length = length_of(&c), row = length / c.height, filters = below(8) ? 5 : 6 + below(250);
            uint64_t only = below(3) ? 5 : below(5), span = below(2) ? 256 : 1 + below(255);
            if (!below(16)) length = below(2) ? length + 1 + below(9) : below(length);
            uint8_t *rows = filled(length, 0);
            for (uint64_t i = 0; i < length; i += 8) {
                uint64_t bytes = next();
                memcpy(rows + i, &bytes, (size_t)(length - i < 8 ? length - i : 8));
            }
            for (uint64_t i = 0; span < 256 && i < length; i++) rows[i] = (uint8_t)(rows[i] % span);
            for (uint64_t i = 0; i < length; i += row) rows[i] = (uint8_t)(only < 5 ? only : below(filters));
            decoded += (uint64_t)decode(head, rows, length);
            free(rows);
        }
    printf("%llu inputs, %llu of them decoded\n", (unsigned long long)inputs, (unsigned long long)decoded);
    return 0;
}

#endif
