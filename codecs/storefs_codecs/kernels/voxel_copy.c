/* Voxels of a chunk to where they go in a larger array. numpy does that too, at twice the cost where rows are
   as short as those of chunks. */

#include "labels.h"

enum { INTERFACE = 1 }; /* raise with every change of a signature below */
enum { MOST_AXES = 8, CACHE_LINE = 64 };

typedef struct {
    int64_t count, from, to; /* `from` and `to`: bytes from one to the next */
} Axis;

EXPORT int storefs_voxel_copy_interface(void) { return INTERFACE; }

static void copy(const Axis *axis, const int rank, const uint8_t *from, uint8_t *to, const size_t row) {
    if (rank == 0) {
        memcpy(to, from, row);
        return;
    }
    for (int64_t i = 0; i < axis->count; i++, from += axis->from, to += axis->to) {
        if (rank > 1)
            copy(axis + 1, rank - 1, from, to, row);
        else if (row == CACHE_LINE)
            memcpy(to, from, CACHE_LINE); /* without a call */
        else
            memcpy(to, from, row);
    }
}

/* Copy `rank` axes, of each the count of items and the bytes from one to the next here and there. Whether that was done:
   not where items of the last axis do not lie side by side. */
EXPORT int storefs_voxel_copy(const uint8_t *from, uint8_t *to, const Axis *axes, const int rank, const int64_t itemsize) {
    int64_t row = itemsize;
    int outer = rank;
    if (rank < 1 || rank > MOST_AXES) return 0;
    for (int i = 0; i < rank; i++)
        if (axes[i].count == 0) return 1;
    while (outer && (axes[outer - 1].count == 1 || (axes[outer - 1].from == row && axes[outer - 1].to == row)))
        row *= axes[--outer].count;
    if (row == itemsize && outer) return 0;
    copy(axes, outer, from, to, (size_t)row);
    return 1;
}
