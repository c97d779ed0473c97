/* Copy rows of a cube's part past the cache: a processor that stores through its cache reads the memory first, and the
 * C library stores past it in copies of megabytes alone, far longer than a tile's rows. */
#include <stdint.h>
#include <string.h>

#include "common/simd.h"

#if defined(__SSE2__)
#include <emmintrin.h>

enum { LINE = 64 };

/* Copy a row; whole cache lines of the target past the cache. */
INLINE void copy_row(float *to, const float *from, size_t bytes) {
    char *y = (char *)to;
    const char *x = (const char *)from;
    const size_t head = -(uintptr_t)y % LINE < bytes ? -(uintptr_t)y % LINE : bytes;
    memcpy(y, x, head);
    size_t at = head;
    for (; at + LINE <= bytes; at += LINE)
        for (int part = 0; part < LINE; part += 16)
            _mm_stream_si128((__m128i *)(y + at + part), _mm_loadu_si128((const __m128i *)(x + at + part)));
    memcpy(y + at, x + at, bytes - at);
}

INLINE void finish(void) { _mm_sfence(); }
#else
INLINE void copy_row(float *to, const float *from, size_t bytes) { memcpy(to, from, bytes); }

INLINE void finish(void) {}
#endif

/* Copy x to y, both (bands, rows, columns), whose rows are contiguous; the steps from row to row and from band to band
 * are in bytes. */
EXPORT void ccnet_copy_rows(float *y, int64_t y_band, int64_t y_row, const float *x, int64_t x_band, int64_t x_row,
                            int64_t bands, int64_t rows, int64_t columns) {
    for (int64_t band = 0; band < bands; band++)
        for (int64_t row = 0; row < rows; row++)
            copy_row((float *)((char *)y + band * y_band + row * y_row),
                     (const float *)((const char *)x + band * x_band + row * x_row), columns * sizeof *y);
    finish();
}
