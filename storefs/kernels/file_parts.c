/* Parts of many files of mere voxels, read to where they go: a call for many chunks, without the GIL.

   A file that is not there, is none, or is not as long as its chunk is left to whoever can say what is the matter. */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { INTERFACE = 1 }; /* raise with every change of a signature below */
enum { MOST_AXES = 8 };
/* a read of a few bytes takes as long as so many more of a long one, from memory and from a disk */
enum { BYTES_A_READ = 8192, BYTES_A_SEEK = 128 << 10 };

/* What is wanted of a chunk along one axis, and at which voxel of the result that begins. */
typedef struct {
    int64_t start, stop, step, target, length;
} Along;

typedef struct {
    int64_t count, from, to; /* `from` and `to`: bytes from one voxel to the next, in the file and in the result */
    int64_t span;            /* bytes in the file, from the first wanted on this axis and those inside it to the last */
    int dense;               /* whether these lie without gaps in both */
} Axis;

typedef struct {
    int file, rank;
    int64_t itemsize;
    Axis axes[MOST_AXES];
    uint8_t *scratch;
    int64_t room;
    uint64_t received;
} Reading;

EXPORT int storefs_files_interface(void) { return INTERFACE; }

/* The file at `path`, which has `size` bytes; -1 where there is none. */
static int open_file(const char *path, const int64_t size) {
    struct stat status;
    int file;
    do file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (file < 0 && errno == EINTR);
    if (file < 0) return -1;
    if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == size) return file;
    close(file);
    return -1;
}

/* Whether `length` bytes from `at` on could be read. */
static int read_span(Reading *reading, int64_t at, uint8_t *to, int64_t length) {
    reading->received += (uint64_t)length;
    while (length) {
        const ssize_t got = pread(reading->file, to, (size_t)length, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        to += got, at += got, length -= got;
    }
    return 1;
}

static void copy_row(const uint8_t *from, uint8_t *to, const Axis *axis, const int64_t itemsize) {
    if (axis->dense) {
        if (axis->span == 64)
            memcpy(to, from, 64); /* without a call */
        else
            memcpy(to, from, (size_t)axis->span);
        return;
    }
    for (int64_t i = 0; i < axis->count; i++, from += axis->from, to += axis->to)
        switch (itemsize) {
        case 1: *to = *from; break;
        case 2: memcpy(to, from, 2); break;
        case 4: memcpy(to, from, 4); break;
        case 8: memcpy(to, from, 8); break;
        default: memcpy(to, from, (size_t)itemsize);
        }
}

static void copy_box(const Reading *reading, const int number, const uint8_t *from, uint8_t *to) {
    const Axis *axis = reading->axes + number;
    if (number == reading->rank - 1) {
        copy_row(from, to, axis, reading->itemsize);
        return;
    }
    for (int64_t i = 0; i < axis->count; i++, from += axis->from, to += axis->to)
        copy_box(reading, number + 1, from, to);
}

/* The box along axis `number` and those inside it, as large a part at a time as there is room for. */
static int read_box(Reading *reading, const int number, int64_t at, uint8_t *to) {
    if (number == reading->rank) return read_span(reading, at, to, reading->itemsize);
    const Axis *axis = reading->axes + number;
    if (axis->dense) return read_span(reading, at, to, axis->span);
    if (axis->span <= reading->room) {
        if (!read_span(reading, at, reading->scratch, axis->span)) return 0;
        copy_box(reading, number, reading->scratch, to);
        return 1;
    }
    for (int64_t i = 0; i < axis->count; i++, at += axis->from, to += axis->to)
        if (!read_box(reading, number + 1, at, to)) return 0;
    return 1;
}

/* The boxes that `alongs`, `rank` of them a file, want of the `count` files whose paths stand in a row at `paths`.
   They go to `out`, in `strides` (bytes). `read` tells which were; the bytes of those are given. */
EXPORT uint64_t storefs_files_boxes(const char *paths, const uint64_t count, const int rank, const Along *alongs,
                                    uint8_t *out, const int64_t *strides, const int64_t itemsize, uint8_t *scratch,
                                    const int64_t room, uint8_t *read) {
    uint64_t received = 0;
    if (rank < 1 || rank > MOST_AXES) {
        memset(read, 0, count);
        return 0;
    }
    for (uint64_t i = 0; i < count; i++, alongs += rank, paths += strlen(paths) + 1) {
        Reading reading = {.rank = rank, .itemsize = itemsize, .scratch = scratch, .room = room};
        int64_t stride = itemsize, span = itemsize, at = 0;
        int dense = 1;
        uint8_t *to = out;
        for (int a = rank - 1; a >= 0; a--) {
            const Along *along = alongs + a;
            Axis *axis = reading.axes + a;
            axis->count = (along->stop - along->start + along->step - 1) / along->step;
            axis->from = stride * along->step;
            axis->to = strides[a];
            dense = dense && (axis->count == 1 || (axis->from == span && axis->to == span));
            axis->dense = dense;
            axis->span = span += (axis->count - 1) * axis->from;
            at += along->start * stride;
            to += along->target * strides[a];
            stride *= along->length;
        }
        reading.file = open_file(paths, stride);
        read[i] = 0;
        if (reading.file < 0) continue;
        read[i] = (uint8_t)read_box(&reading, 0, at, to);
        close(reading.file);
        if (read[i]) received += reading.received;
    }
    return received;
}

/* The voxels at `offsets` (bytes), `counts` of them of each of the `count` files, of `sizes`. They go to `out`, one after
   the other. `read` tells of which files they were read; the bytes of those are given. */
EXPORT uint64_t storefs_files_points(const char *paths, const uint64_t count, const int64_t *sizes,
                                     const int64_t *counts, const int64_t *offsets, uint8_t *out,
                                     const int64_t itemsize, uint8_t *scratch, const int64_t room, uint8_t *read) {
    uint64_t received = 0;
    for (uint64_t i = 0; i < count; i++, paths += strlen(paths) + 1) {
        Reading reading = {.file = open_file(paths, sizes[i])};
        read[i] = reading.file >= 0;
        if (read[i] && sizes[i] <= room && sizes[i] / BYTES_A_READ < counts[i]) {
            read[i] = (uint8_t)read_span(&reading, 0, scratch, sizes[i]);
            for (int64_t p = 0; read[i] && p < counts[i]; p++)
                memcpy(out + p * itemsize, scratch + offsets[p], (size_t)itemsize);
        } else {
#if defined(POSIX_FADV_WILLNEED)
            /* of a file that is still on the disk, all comes as soon as a few pages here and there */
            if (read[i] && sizes[i] / BYTES_A_SEEK < counts[i])
                posix_fadvise(reading.file, 0, (off_t)sizes[i], POSIX_FADV_WILLNEED);
#endif
            for (int64_t p = 0; read[i] && p < counts[i]; p++)
                read[i] = (uint8_t)read_span(&reading, offsets[p], out + p * itemsize, itemsize);
        }
        if (reading.file >= 0) close(reading.file);
        if (read[i]) received += reading.received;
        out += counts[i] * itemsize;
        offsets += counts[i];
    }
    return received;
}
