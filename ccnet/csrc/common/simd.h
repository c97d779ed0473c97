/* What the kernels share: a version for each generation of processors, and functions that are vectorised everywhere. */
#pragma once
#include <math.h>
#include <string.h>

#define MAX_HEADS 4
#define MAX_BANDS 64

/* REGISTER: the floats of a vector register, where code of ours is chosen by it. A compiler keeps longer vectors in memory. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define REGISTER (__builtin_cpu_supports("avx512vl") ? 16 : __builtin_cpu_supports("avx2") ? 8 : 4)
#else
#define CLONES
#define REGISTER 4
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(_WIN32)
#define HIDDEN
#else
#define HIDDEN __attribute__((visibility("hidden")))
#endif

/* The band that stream (direction, lead) reads at step: the window's centre, or the slot ahead of it. */
INLINE int band_of(int bands, int direction, int lead, int step) {
    int position = step + lead;
    return position >= bands ? -1 : direction ? bands - 1 - position : position;
}

/* What the slots of the forward, then of the backward window read: a stream, at a band so much after the window's. */
static const struct { int stream, shift; } SLOTS[6] = {{0, -1}, {0, 0}, {1, 0}, {3, 0}, {2, 0}, {2, 1}};

#define TAPS 9

/* Where the 3x3 of output head o and input head i for a slot begins in the output gates' kernel. */
INLINE long taps(int n, int slot, int o, int i) { return (((long)(slot / 3 * n + o) * n + i) * 3 + slot % 3) * TAPS; }

INLINE int least(int a, int b) { return a < b ? a : b; }

/* Of the planes of all images, which are cut into blocks of so many pixels: its image, first pixel, and number of pixels. */
typedef struct { long image, at, count; } Block;

INLINE Block block_of(long plane, long size, long index) {
    const long blocks = (plane + size - 1) / size, at = index % blocks * size;
    return (Block){index / blocks, at, plane - at < size ? plane - at : size};
}

/* 9 and 6, which the compiler must not know: it would give the results beyond apart. */
HIDDEN extern const float TANH_END, SLOPE_END;

/* tanh as x P(x^2) / Q(x^2), fitted for the least relative error, 2e-8 before rounding, up to 9, where tanh is 1 in
 * float32. A gradient through many steps needs it as exact as that. */
INLINE float tanh_of(float x) {
    float c = TANH_END < x ? TANH_END : x; /* in this order a NaN stays one */
    c = c < -TANH_END ? -TANH_END : c;
    const float u = c * c;
    const float p = .999999979f + u * (.133810251f + u * (.00349558752f + u * (2.06090711e-5f + u * 1.33546434e-8f)));
    const float q = 1.f + u * (.467143407f + u * (.0258769799f + u * (3.28563378e-4f + u * 7.77655146e-7f)));
    return c * p / q;
}

/* 1 / (1 + e^-x). */
INLINE float sigmoid_of(float x) { return .5f + .5f * tanh_of(.5f * x); }

/* x Phi(x) = (x + |x|) / 2 - |x| Phi(-|x|); Phi(-a) as 1/2 - a P(a^2) / Q(a^2), fitted for the least error of the whole,
 * 2e-7 before rounding, up to 5.25, where what is taken off is that small. */
INLINE float gelu_of(float x) {
    const float size = fabsf(x), a = size > 5.25f ? 5.25f : size, u = a * a;
    const float p = .398939724f + u * (.0591569856f + u * (.00619350899f + u * (4.24284416e-4f + u * 7.79221287e-6f)));
    const float q = 1.f + u * (.314924701f + u * (.0430494023f + u * (.00331574532f + u * (1.54427999e-4f +
                    u * 6.46141763e-7f))));
    return .5f * (x + size) - a * (.5f - a * p / q);
}

/* gelu's derivative, as 1/2 + x P(x^2) / Q(x^2), fitted for the least error, 2e-7 before rounding, up to 6, where it is 1
 * in float32. */
INLINE float gelu_slope_of(float x) {
    float c = SLOPE_END < x ? SLOPE_END : x; /* in this order a NaN stays one */
    c = c < -SLOPE_END ? -SLOPE_END : c;
    const float u = c * c;
    const float p = .797884532f + u * (-.0307434516f + u * (.0142091743f + u * (2.41841176e-5f + u * (3.58505761e-5f +
                    u * 1.90885109e-7f))));
    const float q = 1.f + u * (.294805681f + u * (.041064697f + u * (.00352876247f + u * (1.93519862e-4f +
                    u * 8.88747847e-6f))));
    return .5f + c * p / q;
}

/* The 3x3 correlation of three rows with k, from so many columns on. */
INLINE float correlation(const float *k, const float *above, const float *centre, const float *below, long p) {
    return k[0] * above[p] + k[1] * above[p + 1] + k[2] * above[p + 2] + k[3] * centre[p] + k[4] * centre[p + 1] +
           k[5] * centre[p + 2] + k[6] * below[p] + k[7] * below[p + 1] + k[8] * below[p + 2];
}

/* e^x of a cosine, fitted for the least relative error, 2e-7 before rounding. */
INLINE float exp_of_cosine(float x) {
    const float high = .0416390676f + x * (.0083486949f + x * (.00143653747f + x * 1.9297129e-4f));
    return .999999881f + x * (1.00000105f + x * (.500004857f + x * (.166658251f + x * high)));
}

INLINE float dot(const float *restrict a, const float *restrict b, int count) {
    float sum = 0.f;
    for (int p = 0; p < count; p++) sum += a[p] * b[p];
    return sum;
}
