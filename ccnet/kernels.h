/* What the kernels share: a version for each generation of processors, and functions that are vectorised everywhere. */
#include <string.h>

#define MAX_HEADS 4
#define MAX_BANDS 64

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

#define INLINE static inline __attribute__((always_inline))

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

/* e^x = 2^k e^r with |r| <= ln(2) / 2, to a few units in the last place: inline, so that it is vectorised everywhere.
 * -ffast-math may turn a NaN into a number where it is clamped, so that is put back by its bits. */
INLINE float exp_of(float x) {
    const float limited = x < -87.f ? -87.f : x > 88.f ? 88.f : x;
    const int k = (int)(limited * 1.44269504f + (limited < 0.f ? -.5f : .5f));
    const float r = limited - k * .693147181f;
    const float e_r = 1.f + r * (1.f + r * (1.f / 2 + r * (1.f / 6 + r * (1.f / 24 + r * (1.f / 120 + r / 720)))));
    int bits = (k + 127) << 23, of_x, of_result;
    float scale, result;
    memcpy(&scale, &bits, sizeof scale);
    result = scale * e_r;
    memcpy(&of_x, &x, sizeof of_x);
    memcpy(&of_result, &result, sizeof of_result);
    of_result |= (of_x & 0x7fffffff) > 0x7f800000 ? -1 : 0;
    memcpy(&result, &of_result, sizeof result);
    return result;
}

INLINE float tanh_of(float m) { return 1.f - 2.f / (1.f + exp_of(2.f * m)); }
