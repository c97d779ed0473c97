/* What the kernels share: a version for each generation of processors, and functions that are vectorised everywhere. */
#pragma once
#include <string.h>

#define MAX_HEADS 4
#define MAX_BANDS 64

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12
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

/* As other than a NaN x would make it: -ffast-math may turn a NaN into a number where it is clamped. */
INLINE float unless_nan(float result, float x) {
    int of_x, of_result;
    memcpy(&of_x, &x, sizeof of_x);
    memcpy(&of_result, &result, sizeof of_result);
    of_result |= (of_x & 0x7fffffff) > 0x7f800000 ? -1 : 0;
    memcpy(&result, &of_result, sizeof result);
    return result;
}

/* tanh as x P(x^2) / Q(x^2), fitted for the least relative error, 2e-8, up to 9, where tanh is 1 in float32. */
INLINE float tanh_of_number(float x) {
    const float c = x < -9.f ? -9.f : x > 9.f ? 9.f : x, u = c * c;
    const float p = .999999979f + u * (.133810251f + u * (.00349558752f + u * (2.06090711e-5f + u * 1.33546434e-8f)));
    const float q = 1.f + u * (.467143407f + u * (.0258769799f + u * (3.28563378e-4f + u * 7.77655146e-7f)));
    return c * p / q;
}

INLINE float tanh_of(float x) { return unless_nan(tanh_of_number(x), x); }

/* 1 / (1 + e^-x). */
INLINE float sigmoid_of_number(float x) { return .5f + .5f * tanh_of_number(.5f * x); }

INLINE float sigmoid_of(float x) { return unless_nan(sigmoid_of_number(x), x); }
