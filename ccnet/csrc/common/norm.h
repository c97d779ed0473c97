/* The statistics of layer normalisation over the channels of each pixel. */
#pragma once
#include <math.h>
#include <string.h>

#include "common/simd.h"

/* Compute mean and 1 / sqrt(variance + epsilon) over the channels of `count` pixels; x (channels, stride). */
INLINE void channel_statistics(const float *restrict x, int channels, long stride, long count, float epsilon,
                               float *restrict mean, float *restrict inverse_deviation) {
    memset(mean, 0, count * sizeof *mean);
    memset(inverse_deviation, 0, count * sizeof *inverse_deviation);
    for (int c = 0; c < channels; c++)
        for (long p = 0; p < count; p++) mean[p] += x[c * stride + p];
    for (long p = 0; p < count; p++) mean[p] /= channels;
    for (int c = 0; c < channels; c++)
        for (long p = 0; p < count; p++) {
            const float difference = x[c * stride + p] - mean[p];
            inverse_deviation[p] += difference * difference;
        }
    for (long p = 0; p < count; p++) inverse_deviation[p] = 1.f / sqrtf(inverse_deviation[p] / channels + epsilon);
}
