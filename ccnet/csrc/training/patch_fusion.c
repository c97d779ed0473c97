/* Patch-wise adaptive fusion (Eq. 11-13) for training, and its gradient:
 *
 *     y = sum over k of softmax over k of cos(mapped, compressed_k) compressed_k
 *
 * channel by channel, patch by patch. A patch is read into a buffer that stays in cache.
 *
 * Layout: mapped, y (B, C, H, W); compressed (B, k, H, W); patches of r x r pixels. Rows of patches [first, last) are
 * counted over all images, B * H / r.
 */
#include <stdlib.h>

#include "common/fusion.h"
#include "common/kernel.h"

LIMIT(max_groups, MAX_GROUPS);
EXPORT const float ccnet_min_norm = MIN_NORM; /* a test compares it with ccnet.ops.band_cosine.EPS */

typedef struct { int channels, groups, patch, height, width; } Shape;
typedef struct { const Shape *shape; long image; int y, x; } Patch;

/* Return the index of the patch's first pixel in a channel of a tensor. */
INLINE long index_of(Patch patch, int channels, int channel) {
    return ((patch.image * channels + channel) * patch.shape->height + patch.y) * patch.shape->width + patch.x;
}

INLINE void load(Patch patch, const float *tensor, int channels, int channel, float *restrict to) {
    const float *from = tensor + index_of(patch, channels, channel);
    for (int row = 0; row < patch.shape->patch; row++, from += patch.shape->width)
        for (int p = 0; p < patch.shape->patch; p++) *to++ = from[p];
}

INLINE void store(Patch patch, float *tensor, int channels, int channel, const float *restrict from) {
    float *to = tensor + index_of(patch, channels, channel);
    for (int row = 0; row < patch.shape->patch; row++, to += patch.shape->width)
        for (int p = 0; p < patch.shape->patch; p++) to[p] = *from++;
}

/* The compressed channels of a patch and 1 / ||compressed_k||. */
typedef struct { float *patches, inverse_norms[MAX_GROUPS]; } Compressed;

INLINE void load_compressed(Patch patch, const float *compressed, Compressed *to) {
    const int groups = patch.shape->groups, count = patch.shape->patch * patch.shape->patch;
    for (int k = 0; k < groups; k++) {
        float *one = to->patches + (long)k * count;
        load(patch, compressed, groups, k, one);
        to->inverse_norms[k] = 1.f / norm_of(one, count);
    }
}

/* buffer: groups + 2 patches. */
INLINE void patch_forward(Patch patch, const float *mapped, const float *compressed, float *y, float *buffer) {
    const Shape shape = *patch.shape;
    const int count = shape.patch * shape.patch;
    Compressed groups = {.patches = buffer};
    float *const channel = buffer + (long)shape.groups * count, *const sum = channel + count;
    float cosines[MAX_GROUPS], weights[MAX_GROUPS], weight_sum;
    load_compressed(patch, compressed, &groups);
    for (int c = 0; c < shape.channels; c++) {
        load(patch, mapped, shape.channels, c, channel);
        const float inverse_norm = 1.f / norm_of(channel, count);
        fusion_weights(count, count, 1, shape.groups, channel, &inverse_norm, groups.patches, groups.inverse_norms,
                       cosines, weights, &weight_sum);
        memset(sum, 0, count * sizeof *sum);
        for (int k = 0; k < shape.groups; k++) add_scaled(sum, weights[k], groups.patches + (long)k * count, count);
        store(patch, y, shape.channels, c, sum);
    }
}

/* The gradient of a cosine to x is (other / ||other|| - cosine x / ||x||) / ||x||. Return the factor of x, which is 0
 * at the lower limit of the norm, where the norm is a constant. */
INLINE float own_factor(float slope, float cosine, float inverse_norm) {
    return inverse_norm < 1.f / MIN_NORM ? -slope * cosine * inverse_norm * inverse_norm : 0.f;
}

/* The buffers of patch_backward. g_compressed (groups, count) holds a patch for each group, the others one patch. */
typedef struct { float *g_compressed, *channel, *grad, *g_channel; } Buffers;

/* The gradient of one channel, buffers.g_channel; buffers.g_compressed and own, the factors of the compressed channels
 * themselves, grow by the channel's share. */
INLINE void channel_backward(int groups, int count, const Compressed *compressed, Buffers buffers, float *own) {
    float cosines[MAX_GROUPS], weights[MAX_GROUPS], slopes[MAX_GROUPS], weight_sum;
    const float inverse_norm = 1.f / norm_of(buffers.channel, count);
    fusion_weights(count, count, 1, groups, buffers.channel, &inverse_norm, compressed->patches,
                   compressed->inverse_norms, cosines, weights, &weight_sum);
    float mean = 0.f, factor = 0.f;
    for (int k = 0; k < groups; k++)
        mean += weights[k] * (slopes[k] = dot(buffers.grad, compressed->patches + (long)k * count, count));
    memset(buffers.g_channel, 0, count * sizeof *buffers.g_channel);
    for (int k = 0; k < groups; k++) {
        const float slope = weights[k] * (slopes[k] - mean), inverse_k = compressed->inverse_norms[k];
        const float share = slope * inverse_norm * inverse_k;
        add_scaled(buffers.g_channel, share, compressed->patches + (long)k * count, count);
        factor += own_factor(slope, cosines[k], inverse_norm);
        own[k] += own_factor(slope, cosines[k], inverse_k);
        float *restrict g = buffers.g_compressed + (long)k * count;
        for (int p = 0; p < count; p++) g[p] += weights[k] * buffers.grad[p] + share * buffers.channel[p];
    }
    add_scaled(buffers.g_channel, factor, buffers.channel, count);
}

/* buffer: 2 groups + 3 patches. */
INLINE void patch_backward(Patch patch, const float *grad, const float *mapped, const float *compressed,
                           float *g_mapped, float *g_compressed, float *buffer) {
    const Shape shape = *patch.shape;
    const int count = shape.patch * shape.patch;
    const long size = (long)shape.groups * count;
    float *const rest = buffer + 2 * size;
    const Buffers buffers = {buffer + size, rest, rest + count, rest + 2l * count};
    Compressed groups = {.patches = buffer};
    float own[MAX_GROUPS] = {0};
    load_compressed(patch, compressed, &groups);
    memset(buffers.g_compressed, 0, size * sizeof *buffer);
    for (int c = 0; c < shape.channels; c++) {
        load(patch, mapped, shape.channels, c, buffers.channel);
        load(patch, grad, shape.channels, c, buffers.grad);
        channel_backward(shape.groups, count, &groups, buffers, own);
        store(patch, g_mapped, shape.channels, c, buffers.g_channel);
    }
    for (int k = 0; k < shape.groups; k++) {
        float *g = buffers.g_compressed + (long)k * count;
        add_scaled(g, own[k], groups.patches + (long)k * count, count);
        store(patch, g_compressed, shape.groups, k, g);
    }
}

typedef struct {
    int64_t channels, groups, patch, height, width;
    const float *mapped, *compressed;
    float *y;
} ForwardArgs;

CLONES KERNEL(ccnet_fusion, ForwardArgs) {
    const Shape shape = {(int)args->channels, (int)args->groups, (int)args->patch, (int)args->height, (int)args->width};
    const int size = shape.patch, down = shape.height / size;
    float *buffer = malloc((shape.groups + 2l) * size * size * sizeof *buffer);
    if (!buffer) return OUT_OF_MEMORY;
    for (long row = first; row < last; row++)
        for (int x = 0; x < shape.width; x += size) {
            const Patch patch = {&shape, row / down, (int)(row % down) * size, x};
            patch_forward(patch, args->mapped, args->compressed, args->y, buffer);
        }
    free(buffer);
    return 0;
}

typedef struct {
    int64_t channels, groups, patch, height, width;
    const float *grad, *mapped, *compressed;
    float *g_mapped, *g_compressed;
} BackwardArgs;

CLONES KERNEL(ccnet_fusion_backward, BackwardArgs) {
    const Shape shape = {(int)args->channels, (int)args->groups, (int)args->patch, (int)args->height, (int)args->width};
    const int size = shape.patch, down = shape.height / size;
    float *buffer = malloc((2l * shape.groups + 3) * size * size * sizeof *buffer);
    if (!buffer) return OUT_OF_MEMORY;
    for (long row = first; row < last; row++)
        for (int x = 0; x < shape.width; x += size) {
            const Patch patch = {&shape, row / down, (int)(row % down) * size, x};
            patch_backward(patch, args->grad, args->mapped, args->compressed, args->g_mapped, args->g_compressed,
                           buffer);
        }
    free(buffer);
    return 0;
}
