/* Whether a gzip member may begin in some bytes: libdeflate stops at the end of the first, and does not say where. */

#include "labels.h"

enum { INTERFACE = 1 }; /* raise with every change of a signature below */
enum { BATCH = 4096 };

EXPORT int storefs_gzip_interface(void) { return INTERFACE; }

/* Whether 1f 8b 08 stands anywhere in the `length` bytes at `data`. */
EXPORT int storefs_gzip_begins(const uint8_t *data, uint64_t length) {
    while (length > 2) {
        uint64_t n = length - 2 < BATCH ? length - 2 : BATCH;
        uint8_t found = 0;
        for (uint64_t i = 0; i < n; i++) /* compilers find vectors in it */
            found |= (data[i] == 0x1f) & (data[i + 1] == 0x8b) & (data[i + 2] == 8);
        if (found) return 1;
        data += n, length -= n;
    }
    return 0;
}
