/* Activation functions as rational approximations, which compilers vectorise on every platform. */
#pragma once
#include <math.h>

#include "common/simd.h"

/* TANH_END is 9, SLOPE_END is 6. The compiler must not know these values: it would rearrange the clamps and lose the
 * exact limits of the functions for large arguments. */
HIDDEN extern const float TANH_END, SLOPE_END;

/* tanh(x) as x P(x^2) / Q(x^2), fitted for the least relative error, 2e-8 before rounding, up to 9, where tanh is 1 in
 * float32. Gradients through many steps need this accuracy. */
INLINE float tanh_of(float x) {
    float c = TANH_END < x ? TANH_END : x; /* this order keeps a NaN */
    c = c < -TANH_END ? -TANH_END : c;
    const float u = c * c;
    const float p = .999999979f + u * (.133810251f + u * (.00349558752f + u * (2.06090711e-5f + u * 1.33546434e-8f)));
    const float q = 1.f + u * (.467143407f + u * (.0258769799f + u * (3.28563378e-4f + u * 7.77655146e-7f)));
    return c * p / q;
}

/* 1 / (1 + e^-x). */
INLINE float sigmoid_of(float x) { return .5f + .5f * tanh_of(.5f * x); }

/* gelu(x) = x Phi(x) = (x + |x|) / 2 - |x| Phi(-|x|). Phi(-a) as 1/2 - a P(a^2) / Q(a^2), fitted for the least error of
 * the result, 2e-7 before rounding, up to 5.25, where the subtracted term is that small. */
INLINE float gelu_of(float x) {
    const float size = fabsf(x), a = size > 5.25f ? 5.25f : size, u = a * a;
    const float p = .398939724f + u * (.0591569856f + u * (.00619350899f + u * (4.24284416e-4f + u * 7.79221287e-6f)));
    const float q = 1.f + u * (.314924701f + u * (.0430494023f + u * (.00331574532f + u * (1.54427999e-4f +
                    u * 6.46141763e-7f))));
    return .5f * (x + size) - a * (.5f - a * p / q);
}

/* The derivative of gelu as 1/2 + x P(x^2) / Q(x^2), fitted for the least error, 2e-7 before rounding, up to 6, where
 * the derivative is 1 in float32. */
INLINE float gelu_slope_of(float x) {
    float c = SLOPE_END < x ? SLOPE_END : x; /* this order keeps a NaN */
    c = c < -SLOPE_END ? -SLOPE_END : c;
    const float u = c * c;
    const float p = .797884532f + u * (-.0307434516f + u * (.0142091743f + u * (2.41841176e-5f + u * (3.58505761e-5f +
                    u * 1.90885109e-7f))));
    const float q = 1.f + u * (.294805681f + u * (.041064697f + u * (.00352876247f + u * (1.93519862e-4f +
                    u * 8.88747847e-6f))));
    return .5f + c * p / q;
}
