/* What the kernels for label encodings share: loads and stores free of alignment, hashing and sorting of labels. */

#ifndef STOREFS_LABELS_H
#define STOREFS_LABELS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE uint32_t load32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

INLINE void store32(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

INLINE uint64_t load_label(const uint8_t *at, const int size) {
    return size == 4 ? load32(at) : load32(at) | (uint64_t)load32(at + 4) << 32;
}

INLINE void store_label(uint8_t *at, uint64_t label, const int size) {
    store32(at, (uint32_t)label);
    if (size == 8) store32(at + 4, (uint32_t)(label >> 32));
}

typedef struct {
    uint64_t label;
    uint32_t seen; /* its place in the order of first appearance */
} Entry;

INLINE uint64_t mix(uint64_t h) {
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

static inline uint64_t power_of_two(uint64_t at_least) {
    uint64_t n = 1;
    while (n < at_least) n <<= 1;
    return n;
}

static inline int by_label(const void *a, const void *b) {
    uint64_t p = ((const Entry *)a)->label, q = ((const Entry *)b)->label;
    return (p > q) - (p < q);
}

static inline void sort_entries(Entry *entries, uint64_t n) {
    if (n > 24) {
        qsort(entries, (size_t)n, sizeof *entries, by_label);
        return;
    }
    for (uint64_t i = 1; i < n; i++) {
        Entry entry = entries[i];
        uint64_t k = i;
        for (; k && entries[k - 1].label > entry.label; k--) entries[k] = entries[k - 1];
        entries[k] = entry;
    }
}

#endif
