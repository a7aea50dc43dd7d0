/* Fuzzes the JPEG kernel; README.md says how to run it.

   An input is a head of 8 bytes (how the rows of the image lie in memory), then a payload. Every buffer has its exact
   size, so that the sanitizers see each step beside it, and what lies between rows must stay as it is. What the kernel
   decodes is compared with a plain reader, which goes bit by bit and transforms by the flow graph of Loeffler,
   Ligtenberg and Moschytz in 64 bits. With vectors and without, the kernel must do the same. */

#include <stdio.h>
#include <time.h>

#include "../../codecs/storefs_codecs/kernels/jpeg.c"

enum { HEAD = 8, CANARY = 0xA5, MOST_SAMPLES = 1 << 16 };

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

/* ---- a plain reader of sequential images ---- */

typedef struct {
    const uint8_t *at, *stop;
    int bits, left; /* of the byte at hand */
    int broken;
} Stream;

static int one_bit(Stream *s) {
    if (!s->left) {
        if (s->stop - s->at < 2 || (s->at[0] == 0xff && s->at[1])) {
            s->broken = 1;
            return 0;
        }
        s->bits = *s->at, s->left = 8;
        s->at += *s->at == 0xff ? 2 : 1;
    }
    return s->bits >> --s->left & 1;
}

static int some_bits(Stream *s, int n) {
    int value = 0;
    while (n--) value = 2 * value + one_bit(s);
    return value;
}

static int one_symbol(Stream *s, const uint8_t *counts) {
    const uint8_t *symbols = counts + 16;
    int code = 0, first = 0;
    for (int length = 1; length <= 16; length++, first *= 2) {
        code = 2 * code + one_bit(s);
        int count = counts[length - 1];
        if (code < first + count) return symbols[code - first];
        symbols += count, first += count;
    }
    s->broken = 1;
    return 0;
}

static int one_value(Stream *s, int size) {
    int value = some_bits(s, size);
    return size && value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
}

static void plain_block(Stream *s, const uint8_t *dc, const uint8_t *ac, int64_t coefficients[64]) {
    memset(coefficients, 0, 64 * sizeof *coefficients);
    coefficients[0] = one_value(s, one_symbol(s, dc));
    for (int k = 1; k < 64 && !s->broken; k++) {
        int symbol = one_symbol(s, ac), size = symbol & 15;
        if (!size && symbol < 0xf0) {
            s->broken |= symbol != 0;
            return;
        }
        k += symbol >> 4;
        int value = one_value(s, size);
        if (k > 63)
            s->broken = 1;
        else
            coefficients[ZIGZAG[k]] = value;
    }
}

/* Eight values `step` apart, by the flow graph with constants of 13 bits; rounded. */
static void flow(int64_t *v, int step, int shift) {
    int64_t a = 8192 * (v[0] + v[4 * step]), b = 8192 * (v[0] - v[4 * step]);
    int64_t turn = 4433 * (v[2 * step] + v[6 * step]);
    int64_t c = turn + 6270 * v[2 * step], d = turn - 15137 * v[6 * step];
    int64_t even[4] = {a + c, b + d, b - d, a - c};
    int64_t p = v[7 * step], q = v[5 * step], r = v[3 * step], t = v[step];
    int64_t all = 9633 * (p + q + r + t);
    int64_t pt = -7373 * (p + t), qr = -20995 * (q + r), pr = all - 16069 * (p + r), qt = all - 3196 * (q + t);
    int64_t odd[4] = {12299 * t + pt + qt, 25172 * r + qr + pr, 16819 * q + qr + qt, 2446 * p + pt + pr};
    for (int i = 0; i < 4; i++) {
        v[i * step] = (even[i] + odd[i] + ((int64_t)1 << (shift - 1))) >> shift;
        v[(7 - i) * step] = (even[i] - odd[i] + ((int64_t)1 << (shift - 1))) >> shift;
    }
}

enum { IRREGULAR, UNCERTAIN, HIDDEN_UNCERTAIN, CERTAIN };

/* The samples of an image whose head is good, `height` rows of `width`. UNCERTAIN samples are far off; HIDDEN ones are
   in blocks beyond the image. */
static int plain_image(const Head *head, const uint8_t *stop, uint8_t *samples, uint64_t height, uint64_t width) {
    const uint8_t *frame = head->frame, *scan = head->scan;
    int components = head->components, verdict = CERTAIN;
    int64_t predicted[3] = {0}, block[64];
    uint64_t h = components == 1 ? 1 : frame[7] >> 4, v = components == 1 ? 1 : frame[7] & 15;
    Stream s = {.at = head->data, .stop = stop};
    for (uint64_t top = 0; top < height; top += 8 * v)
        for (uint64_t left = 0; left < width; left += 8 * h)
            for (int c = 0; c < components; c++) {
                const uint8_t *dc = head->codes[0][scan[2 + 2 * c] >> 4], *ac = head->codes[1][scan[2 + 2 * c] & 15];
                const uint8_t *quantisers = head->quantisers[frame[8 + 3 * c]];
                for (uint64_t n = 0; n < (c ? 1 : h * v); n++) {
                    plain_block(&s, dc, ac, block);
                    if (s.broken) return IRREGULAR;
                    predicted[c] += block[0];
                    block[0] = predicted[c];
                    for (int k = 0; c && k < 64; k++)
                        if (block[k]) return IRREGULAR;
                    if (c) continue;
                    for (int k = 0; k < 64; k++) block[ZIGZAG[k]] *= quantisers[k];
                    for (int x = 0; x < 8; x++) flow(block + x, 8, 11);
                    for (int y = 0; y < 8; y++) flow(block + 8 * y, 1, 18);
                    for (uint64_t i = 0; i < 64; i++) {
                        uint64_t y = top + 8 * (n / h) + i / 8, x = left + 8 * (n % h) + i % 8;
                        int far = block[i] < -FAR || block[i] > FAR, seen = y < height && x < width;
                        if (far && verdict > UNCERTAIN) verdict = seen ? UNCERTAIN : HIDDEN_UNCERTAIN;
                        int64_t sample = block[i] + 128;
                        if (seen) samples[y * width + x] = (uint8_t)clamp((int)sample, 0, 255);
                    }
                }
            }
    return s.stop - s.at < 2 || s.at[0] != 0xff || s.at[1] != 0xd9 ? IRREGULAR : verdict;
}

/* ---- one input ---- */

typedef struct {
    uint64_t shape[3], bytes, origin;
    int64_t strides[2];
} Room;

static Room room_for(const uint8_t head[HEAD], uint64_t height, uint64_t width) {
    Room r = {.shape = {1, height, width}};
    for (uint64_t planes = 1 + head[0] % 8; planes > 1; planes--)
        if (height % planes == 0) {
            r.shape[0] = planes, r.shape[1] = height / planes;
            break;
        }
    if (head[1] % 4 == 0) { /* other rows than those of the image */
        uint64_t x = 1 + head[2] % 40;
        r.shape[0] = 1, r.shape[1] = height * width / x + (head[3] & 1 || height * width < x), r.shape[2] = x;
    }
    uint64_t row = r.shape[2] + (head[4] & 1 ? head[5] % 9 : 0);
    uint64_t plane = row * r.shape[1] + (head[4] & 2 ? head[6] % 9 : 0);
    r.strides[0] = (int64_t)plane, r.strides[1] = (int64_t)row;
    r.bytes = (r.shape[0] - 1) * plane + (r.shape[1] - 1) * row + r.shape[2];
    if (head[4] & 4) r.origin += (r.shape[0] - 1) * plane, r.strides[0] = -r.strides[0];
    if (head[4] & 8) r.origin += (r.shape[1] - 1) * row, r.strides[1] = -r.strides[1];
    return r;
}

enum { TAKEN, LEFT, CONTIGUOUS_WANTED };

/* What becomes of a payload; `whole` where nothing has damaged it. */
static int decode(const uint8_t how[HEAD], const uint8_t *data, uint64_t length, int whole) {
    Head head;
    uint64_t height = 1 + how[2] % 30, width = 1 + how[3] % 30;
    int components = how[7] & 1 ? 3 : 1, known = 0;
    if (!read_head(&head, data, length) && load16(head.frame + 1) && load16(head.frame + 3)) {
        height = load16(head.frame + 1), width = load16(head.frame + 3), components = head.components;
        known = 1;
    }
    if (height * width > MOST_SAMPLES) height = width = 1;
    Room r = room_for(how, height, width);
    uint8_t *outs[2];
    int verdicts[2];
    for (int mode = 0; mode < 2; mode++) {
        outs[mode] = filled(r.bytes, CANARY);
        verdicts[mode] = storefs_jpeg_decode(data, length, components, outs[mode] + r.origin, r.shape, r.strides,
                                             mode ? PLAIN : VECTORS);
        uint8_t *between = filled(r.bytes, 1);
        for (uint64_t z = 0; z < r.shape[0]; z++)
            for (uint64_t y = 0; y < r.shape[1]; y++)
                memset(between + (int64_t)r.origin + (int64_t)z * r.strides[0] + (int64_t)y * r.strides[1], 0,
                       (size_t)r.shape[2]);
        for (uint64_t i = 0; i < r.bytes; i++)
            require(!between[i] || outs[mode][i] == CANARY, "nothing is written beside the rows");
        free(between);
    }
    require(verdicts[0] == verdicts[1], "vectors make no difference to the verdict");
    int taken = !verdicts[0];
    if (taken) require(known, "what is taken has a head");
    if (known && (taken || whole) && height * width <= MOST_SAMPLES) {
        uint8_t *expected = filled(height * width, 0);
        int plain = plain_image(&head, data + length, expected, height, width);
        require(!taken || plain > UNCERTAIN, "what is taken is regular and certain");
        int fits = r.shape[0] * r.shape[1] * r.shape[2] == height * width;
        if (components > 1 && head.frame[7] == 0x31) fits = 0; /* left, as it is rare */
        if (whole && plain == CERTAIN && fits) require(verdicts[0] != DECLINED, "what is regular is taken");
        uint64_t i = 0;
        for (uint64_t z = 0; taken && z < r.shape[0]; z++)
            for (uint64_t y = 0; y < r.shape[1]; y++) {
                int64_t row = (int64_t)r.origin + (int64_t)z * r.strides[0] + (int64_t)y * r.strides[1];
                for (uint64_t x = 0; x < r.shape[2]; x++, i++)
                    require(outs[0][row + (int64_t)x] == expected[i] && outs[1][row + (int64_t)x] == expected[i],
                            "samples as a plain reader");
            }
        free(expected);
    }
    free(outs[0]);
    free(outs[1]);
    return taken ? TAKEN : verdicts[0] == NEEDS_CONTIGUOUS ? CONTIGUOUS_WANTED : LEFT;
}

static int decode_exact(const uint8_t how[HEAD], const uint8_t *data, uint64_t length, int whole) {
    uint64_t odd = how[7] >> 7;
    uint8_t *exact = filled(length + odd, 0);
    memcpy(exact + odd, data, (size_t)length);
    int verdict = decode(how, exact + odd, length, whole);
    free(exact);
    return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    if (length >= HEAD) decode_exact(input, input + HEAD, length - HEAD, 0);
    return 0;
}

#ifndef LIBFUZZER

static uint64_t state;

static uint64_t next(void) { return state = mix(state + 0x9e3779b97f4a7c15u); }

static uint64_t below(uint64_t n) { return next() % n; }

/* ---- random images ---- */

enum { MOST_BYTES = 1 << 20 };

typedef struct {
    uint8_t *at;
    uint64_t size, bits;
    int count;
} Sink;

static void put(Sink *sink, int byte) {
    if (sink->size < MOST_BYTES) sink->at[sink->size++] = (uint8_t)byte;
}

static void put_bits(Sink *sink, uint64_t bits, int count) {
    while (count--) {
        sink->bits = sink->bits << 1 | (bits >> count & 1);
        if (++sink->count < 8) continue;
        put(sink, (int)(sink->bits & 255));
        if ((sink->bits & 255) == 255) put(sink, 0);
        sink->count = 0;
    }
}

typedef struct {
    uint8_t counts[16], symbols[256];
    int n, lengths[256], codes[256];
} Book;

/* A random prefix code for the `n` symbols that are there, one code of ones only left out. */
static void make_book(Book *book) {
    int leaves[257], n = 1, at = 0, code = 0;
    leaves[0] = 0;
    while (n <= book->n) {
        uint64_t i = below(4) ? (uint64_t)(n - 1) : below((uint64_t)n);
        if (leaves[i] == 16) i = below((uint64_t)n);
        if (leaves[i] == 16) continue;
        leaves[n++] = ++leaves[i];
    }
    memset(book->counts, 0, 16);
    for (int i = 0; i < n; i++) book->counts[leaves[i] - 1]++;
    for (int length = 16; length; length--)
        if (book->counts[length - 1]) {
            book->counts[length - 1]--;
            break;
        }
    for (int length = 1; length <= 16; length++, code *= 2)
        for (int i = 0; i < book->counts[length - 1]; i++, at++) book->lengths[at] = length, book->codes[at] = code++;
    for (int i = book->n - 1; i > 0; i--) {
        uint64_t k = below((uint64_t)i + 1);
        uint8_t symbol = book->symbols[i];
        book->symbols[i] = book->symbols[k], book->symbols[k] = symbol;
    }
}

static int put_symbol(Sink *sink, const Book *book, int symbol) {
    for (int i = 0; i < book->n; i++)
        if (book->symbols[i] == symbol) {
            put_bits(sink, (uint64_t)book->codes[i], book->lengths[i]);
            return 1;
        }
    return 0;
}

static void put_block(Sink *sink, const Book *dc, const Book *ac, int64_t *predicted, int least, int most) {
    int size = dc->symbols[below((uint64_t)dc->n)];
    if (size > least) size = 0;
    int64_t value = size ? (int64_t)below((uint64_t)1 << (size - 1)) + (1 << (size - 1)) : 0;
    if (*predicted > 0) value = -value;
    *predicted += value;
    put_symbol(sink, dc, size);
    put_bits(sink, (uint64_t)(value < 0 ? value + (1 << size) - 1 : value), size);
    for (int k = 1; k < 64;) {
        int symbol = below(9) ? ac->symbols[below((uint64_t)ac->n)] : 0;
        if ((symbol & 15) > most || k + (symbol >> 4) > 63 || (!(symbol & 15) && symbol < 0xf0)) symbol = 0;
        put_symbol(sink, ac, symbol);
        if (!symbol) break;
        put_bits(sink, next(), symbol & 15);
        k += (symbol >> 4) + 1;
    }
}

static void put_segment(Sink *sink, int marker, const uint8_t *data, int size) {
    int head[4] = {0xff, marker, (size + 2) >> 8, (size + 2) & 255};
    for (int i = 0; i < 4; i++) put(sink, head[i]);
    for (int i = 0; i < size; i++) put(sink, data[i]);
}

static void put_book(Sink *sink, const Book *book, int which) {
    uint8_t data[273] = {(uint8_t)which};
    memcpy(data + 1, book->counts, 16);
    memcpy(data + 17, book->symbols, (size_t)book->n);
    put_segment(sink, 0xc4, data, 17 + book->n);
}

static void make_image(Sink *sink) {
    static const uint8_t factors[6] = {0x11, 0x21, 0x41, 0x22, 0x12, 0x31};
    uint64_t longest = below(16) ? 40 : 250, height = 1 + below(longest), width = 1 + below(longest);
    int components = below(3) ? 1 : 3, sampling = components == 1 ? 17 * (1 + (int)below(4)) : factors[below(6)];
    uint8_t quantisers[65] = {0}, frame[15] = {8, (uint8_t)(height >> 8), (uint8_t)height, (uint8_t)(width >> 8),
                                              (uint8_t)width, (uint8_t)components};
    uint8_t scan[10] = {(uint8_t)components};
    uint64_t limit = (uint64_t)1 << below(9);
    for (int k = 1; k < 65; k++) quantisers[k] = (uint8_t)(1 + below(limit < 255 ? limit : 255));
    Book dc = {.n = 12}, ac = {.n = 1};
    for (int i = 0; i < 12; i++) dc.symbols[i] = (uint8_t)i;
    for (uint64_t n = 1 + below(below(2) ? 200 : 20); n && ac.n < 200; n--) {
        int symbol = (int)(below(2) ? below(256) : below(4) << 4 | (1 + below(4)));
        int there = symbol < 0xf0 && !(symbol & 15);
        for (int i = 0; i < ac.n; i++) there |= ac.symbols[i] == symbol;
        if (!there) ac.symbols[ac.n++] = (uint8_t)symbol;
    }
    make_book(&dc);
    make_book(&ac);
    sink->size = 0, sink->count = 0;
    put(sink, 0xff), put(sink, 0xd8);
    put_segment(sink, 0xe0, (const uint8_t *)"JFIF\0\1\1\0\0\1\0\1\0", 14);
    put_segment(sink, 0xdb, quantisers, 65);
    for (int c = 0; c < components; c++) {
        frame[6 + 3 * c] = scan[1 + 2 * c] = (uint8_t)(c + 1);
        frame[7 + 3 * c] = (uint8_t)(c ? 0x11 : sampling);
    }
    scan[2 + 2 * components] = 63;
    put_segment(sink, below(2) ? 0xc0 : 0xc1, frame, 6 + 3 * components);
    put_book(sink, &dc, 0x00);
    put_book(sink, &ac, 0x10);
    put_segment(sink, 0xda, scan, 4 + 2 * components);
    int h = components == 1 ? 1 : sampling >> 4, v = components == 1 ? 1 : sampling & 15;
    int least = (int)below(12), most = (int)(below(3) ? below(5) : below(16));
    int64_t predicted[3] = {0};
    for (uint64_t top = 0; top < height; top += 8 * (uint64_t)v)
        for (uint64_t left = 0; left < width; left += 8 * (uint64_t)h) {
            for (int n = 0; n < h * v; n++) put_block(sink, &dc, &ac, &predicted[0], least, most);
            for (int c = 1; c < components; c++) {
                put_symbol(sink, &dc, 0);
                put_symbol(sink, &ac, 0);
            }
        }
    if (sink->count) put_bits(sink, next(), 8 - sink->count);
    put(sink, 0xff), put(sink, 0xd9);
}

static uint64_t mutate(uint8_t *data, uint64_t length) {
    static const uint8_t odd[] = {0, 1, 0x10, 0x11, 0x3f, 0x7f, 0xc0, 0xc4, 0xd0, 0xd9, 0xda, 0xdb, 0xff};
    uint64_t scan = 0;
    while (scan + 2 < length && (data[scan] != 0xff || data[scan + 1] != 0xda)) scan++;
    for (uint64_t n = 1 + below(4); n && length > 8; n--) {
        uint64_t size = 1 + below(4), at = below(below(2) && scan + 14 < length ? scan + 14 : length);
        if (size > length - at) size = length - at;
        switch (below(8)) {
        case 0: data[at] ^= (uint8_t)(1u << below(8)); break;
        case 1: data[at] = (uint8_t)next(); break;
        case 2: data[at] = odd[below(sizeof odd)]; break;
        case 3: data[at] = (uint8_t)(data[at] + below(3) - 1); break;
        case 4:
            memmove(data + at, data + at + size, (size_t)(length - at - size));
            length -= size;
            break;
        case 5:
            memmove(data + at + size, data + at, (size_t)(length - at));
            for (uint64_t i = 0; i < size; i++) data[at + i] = below(2) ? 0xff : (uint8_t)next();
            length += size;
            break;
        case 6:
            memmove(data + at, data + below(length - size), (size_t)size);
            break;
        default: length -= below(8) ? 0 : below(length - 8 + 1); break;
        }
    }
    return length;
}

static uint64_t read_file(const char *path, uint8_t *to) {
    FILE *file = fopen(path, "rb");
    require(file != NULL, path);
    uint64_t size = fread(to, 1, MOST_BYTES, file);
    fclose(file);
    return size;
}

/* fuzz SECONDS [SEED [FILE ...]]: random images, or those in the files, whole, damaged and decoded; and random bytes. */
int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 10;
    state = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    Sink sink = {.at = filled(MOST_BYTES, 0)};
    uint8_t *work = filled(MOST_BYTES + 64, 0), how[HEAD];
    uint64_t images = 0, whole[3] = {0}, damaged[3] = {0};
    for (time_t end = time(NULL) + (time_t)seconds; time(NULL) < end;) {
        if (count > 3 && !below(4))
            sink.size = read_file(arguments[3 + below((uint64_t)count - 3)], sink.at);
        else if (below(50))
            make_image(&sink);
        else {
            make_image(&sink); /* keeps its head, or nothing */
            for (uint64_t i = below(2) ? 300 : 0; i < sink.size; i++) sink.at[i] = (uint8_t)next();
        }
        images++;
        for (int round = 0; round < 32; round++) {
            for (int i = 0; i < HEAD; i++) how[i] = (uint8_t)next();
            uint64_t length = sink.size;
            memcpy(work, sink.at, (size_t)length);
            if (round) length = mutate(work, length);
            (round ? damaged : whole)[decode_exact(how, work, length, !round)]++;
        }
    }
    free(work);
    free(sink.at);
    printf("%llu damaged inputs, %llu of them decoded; %llu images, %llu of them decoded whole\n",
           (unsigned long long)(damaged[0] + damaged[1] + damaged[2]), (unsigned long long)damaged[TAKEN],
           (unsigned long long)images, (unsigned long long)whole[TAKEN]);
    return 0;
}

#endif
