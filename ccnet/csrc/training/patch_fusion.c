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

#include "common/simd.h"
#include "common/threads.h"

#define MAX_GROUPS 16

typedef struct { int channels, groups, patch, height, width; } Shape;
typedef struct { const Shape *shape; long image; int y, x; } Patch;

INLINE long at(Patch patch, int channels, int channel) {
    return ((patch.image * channels + channel) * patch.shape->height + patch.y) * patch.shape->width + patch.x;
}

INLINE void load(Patch patch, const float *tensor, int channels, int channel, float *restrict to) {
    const float *from = tensor + at(patch, channels, channel);
    for (int row = 0; row < patch.shape->patch; row++, from += patch.shape->width)
        for (int p = 0; p < patch.shape->patch; p++) *to++ = from[p];
}

INLINE void store(Patch patch, float *tensor, int channels, int channel, const float *restrict from) {
    float *to = tensor + at(patch, channels, channel);
    for (int row = 0; row < patch.shape->patch; row++, to += patch.shape->width)
        for (int p = 0; p < patch.shape->patch; p++) to[p] = *from++;
}

/* to += so much of a. */
INLINE void add(float *restrict to, float much, const float *restrict a, int count) {
    for (int p = 0; p < count; p++) to[p] += much * a[p];
}

/* ||x||, no less than 1e-6, as ccnet.ops.cosine.EPS has it. */
INLINE float norm_of(const float *x, int count) {
    const float squares = dot(x, x, count);
    return squares > 1e-12f ? sqrtf(squares) : 1e-6f;
}

INLINE void load_compressed(Patch patch, const float *compressed, float *seen, float *norms) {
    const int groups = patch.shape->groups, count = patch.shape->patch * patch.shape->patch;
    for (int k = 0; k < groups; k++, seen += count) {
        load(patch, compressed, groups, k, seen);
        norms[k] = norm_of(seen, count);
    }
}

/* cosines, and the weights that they give. */
INLINE void weigh(int groups, int count, const float *mapped, float norm, const float *compressed, const float *norms,
                  float *cosines, float *weights) {
    float sum = 0.f;
    for (int k = 0; k < groups; k++) {
        cosines[k] = dot(mapped, compressed + (long)k * count, count) / (norm * norms[k]);
        sum += weights[k] = exp_of_cosine(cosines[k]);
    }
    for (int k = 0; k < groups; k++) weights[k] /= sum;
}

/* memory: of k + 2 patches. */
INLINE void patch_forward(Patch patch, const float *mapped, const float *compressed, float *y, float *memory) {
    const Shape shape = *patch.shape;
    const int count = shape.patch * shape.patch;
    float *const seen = memory, *const one = seen + (long)shape.groups * count, *const made = one + count;
    float norms[MAX_GROUPS], cosines[MAX_GROUPS], weights[MAX_GROUPS];
    load_compressed(patch, compressed, seen, norms);
    for (int c = 0; c < shape.channels; c++) {
        load(patch, mapped, shape.channels, c, one);
        weigh(shape.groups, count, one, norm_of(one, count), seen, norms, cosines, weights);
        memset(made, 0, count * sizeof *made);
        for (int k = 0; k < shape.groups; k++) add(made, weights[k], seen + (long)k * count, count);
        store(patch, y, shape.channels, c, made);
    }
}

/* A cosine's gradient to x: (other / ||other|| - cosine x / ||x||) / ||x||; a norm at its floor is a number. */
INLINE float own_share(float slope, float cosine, float norm) { return norm > 1e-6f ? -slope * cosine / (norm * norm) : 0.f; }

/* memory: of 2 k + 3 patches. */
INLINE void patch_backward(Patch patch, const float *grad, const float *mapped, const float *compressed, float *g_mapped,
                           float *g_compressed, float *memory) {
    const Shape shape = *patch.shape;
    const int count = shape.patch * shape.patch, groups = shape.groups;
    float *const seen = memory, *const g_seen = seen + (long)groups * count, *const one = g_seen + (long)groups * count;
    float *const given = one + count, *const made = given + count;
    float norms[MAX_GROUPS], cosines[MAX_GROUPS], weights[MAX_GROUPS], slopes[MAX_GROUPS], own[MAX_GROUPS] = {0};
    load_compressed(patch, compressed, seen, norms);
    memset(g_seen, 0, (long)groups * count * sizeof *g_seen);
    for (int c = 0; c < shape.channels; c++) {
        load(patch, mapped, shape.channels, c, one);
        load(patch, grad, shape.channels, c, given);
        const float norm = norm_of(one, count);
        weigh(groups, count, one, norm, seen, norms, cosines, weights);
        float mean = 0.f, itself = 0.f;
        for (int k = 0; k < groups; k++) mean += weights[k] * (slopes[k] = dot(given, seen + (long)k * count, count));
        memset(made, 0, count * sizeof *made);
        for (int k = 0; k < groups; k++) {
            const float slope = weights[k] * (slopes[k] - mean), share = slope / (norm * norms[k]);
            add(made, share, seen + (long)k * count, count);
            itself += own_share(slope, cosines[k], norm);
            own[k] += own_share(slope, cosines[k], norms[k]);
            float *restrict g = g_seen + (long)k * count;
            for (int p = 0; p < count; p++) g[p] += weights[k] * given[p] + share * one[p];
        }
        add(made, itself, one, count);
        store(patch, g_mapped, shape.channels, c, made);
    }
    for (int k = 0; k < groups; k++) {
        add(g_seen + (long)k * count, own[k], seen + (long)k * count, count);
        store(patch, g_compressed, groups, k, g_seen + (long)k * count);
    }
}

typedef struct { int64_t channels, groups, patch, height, width; const float *mapped, *compressed; float *y; } Forward;

CLONES KERNEL(ccnet_fusion, Forward) {
    const Shape shape = {(int)given->channels, (int)given->groups, (int)given->patch, (int)given->height, (int)given->width};
    const int patch = shape.patch, down = shape.height / patch;
    float *memory = malloc((shape.groups + 2l) * patch * patch * sizeof *memory);
    if (!memory) return 0;
    for (long row = first; row < last; row++)
        for (int x = 0; x < shape.width; x += patch) {
            const Patch one = {&shape, row / down, (int)(row % down) * patch, x};
            patch_forward(one, given->mapped, given->compressed, given->y, memory);
        }
    free(memory);
    return 1;
}

typedef struct {
    int64_t channels, groups, patch, height, width;
    const float *grad, *mapped, *compressed;
    float *g_mapped, *g_compressed;
} Backward;

CLONES KERNEL(ccnet_fusion_backward, Backward) {
    const Shape shape = {(int)given->channels, (int)given->groups, (int)given->patch, (int)given->height, (int)given->width};
    const int patch = shape.patch, down = shape.height / patch;
    float *memory = malloc((2l * shape.groups + 3) * patch * patch * sizeof *memory);
    if (!memory) return 0;
    for (long row = first; row < last; row++)
        for (int x = 0; x < shape.width; x += patch) {
            const Patch one = {&shape, row / down, (int)(row % down) * patch, x};
            patch_backward(one, given->grad, given->mapped, given->compressed, given->g_mapped, given->g_compressed, memory);
        }
    free(memory);
    return 1;
}
