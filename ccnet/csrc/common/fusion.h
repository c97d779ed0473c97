/* The core of patch-wise adaptive fusion (Eq. 11-13) for one patch:
 *
 *     y_c = sum over k of (softmax over k of cos(mapped_c, compressed_k)) compressed_k
 */
#pragma once
#include <math.h>
#include <string.h>

#include "common/simd.h"

#define MAX_GROUPS 16
#define MIN_NORM 1e-6f /* lower limit of the norms in a cosine */

INLINE float dot(const float *restrict a, const float *restrict b, int count) {
    float sum = 0.f;
    for (int p = 0; p < count; p++) sum += a[p] * b[p];
    return sum;
}

/* Return max(||x||, MIN_NORM). */
INLINE float norm_of(const float *x, int count) {
    const float squares = dot(x, x, count);
    return squares > MIN_NORM * MIN_NORM ? sqrtf(squares) : MIN_NORM;
}

/* e^x of a cosine, fitted for the least relative error, 2e-7 before rounding. */
INLINE float exp_of_cosine(float x) {
    const float high = .0416390676f + x * (.0083486949f + x * (.00143653747f + x * 1.9297129e-4f));
    return .999999881f + x * (1.00000105f + x * (.500004857f + x * (.166658251f + x * high)));
}

/* Compute cosines and their softmax over the groups, weights; both (groups, channels). sums: a buffer (channels).
 *
 * mapped (channels, stride) and compressed (groups, stride) hold a patch of `pixels` for each channel. */
INLINE void fusion_weights(int pixels, long stride, const int channels, int groups, const float *mapped,
                           const float *inverse_mapped, const float *compressed, const float *inverse_compressed,
                           float *cosines, float *weights, float *sums) {
    for (int c = 0; c < channels; c++, mapped += stride)
        for (int k = 0; k < groups; k++)
            cosines[k * channels + c] =
                inverse_mapped[c] * inverse_compressed[k] * dot(mapped, compressed + k * stride, pixels);
    for (int c = 0; c < channels; c++) sums[c] = 0.f;
    for (int k = 0; k < groups; k++)
        for (int c = 0; c < channels; c++)
            sums[c] += weights[k * channels + c] = exp_of_cosine(cosines[k * channels + c]);
    for (int k = 0; k < groups; k++)
        for (int c = 0; c < channels; c++) weights[k * channels + c] /= sums[c];
}

/* to += scale * from. */
INLINE void add_scaled(float *restrict to, float scale, const float *restrict from, int count) {
    for (int p = 0; p < count; p++) to[p] += scale * from[p];
}
