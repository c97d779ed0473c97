/* NeSCM's recurrence over the bands (Eq. 5 and 6), one step at a time. */
#pragma once

#include "common/activations.h"
#include "common/bands.h"

/* One step for n heads and `count` pixels:
 *
 *     s = sigmoid(W_m m + W_x x + b)   (Eq. 5)
 *     m <- s m + (1 - s) x             (Eq. 6)
 *     u = tanh(m) + x                  (what Eq. 7 reads; left out where u is null)
 *
 * w (n, [W_m | W_x]); b (n); x, u: a row for each head; m, s (n, stride). */
INLINE void recurrence_step(const int n, const float *w, const float *b, const float *const *x, float *restrict m,
                            float *restrict s, const long stride, float *const *u, const int count) {
    for (int o = 0; o < n; o++) {
        float *restrict gate = s + o * stride;
        for (int p = 0; p < count; p++) {
            float g = b[o];
            for (int i = 0; i < n; i++) g += w[o * 2 * n + i] * m[i * stride + p] + w[o * 2 * n + n + i] * x[i][p];
            gate[p] = sigmoid_of(g);
        }
    }
    for (int o = 0; o < n; o++) {
        const float *restrict from = x[o], *restrict gate = s + o * stride;
        float *restrict memory = m + o * stride;
        if (u) {
            float *restrict to = u[o];
            for (int p = 0; p < count; p++) {
                memory[p] = from[p] + gate[p] * (memory[p] - from[p]);
                to[p] = tanh_of(memory[p]) + from[p];
            }
        } else
            for (int p = 0; p < count; p++) memory[p] = from[p] + gate[p] * (memory[p] - from[p]);
    }
}
