/* NeSCM's recurrence over the bands (Eq. 5 and 6), one step at a time, for the pixels of one thread.
 *
 * With APPROXIMATE_TANH, tanh is one instruction that is exact to 11 bits, as FP16 is; without it, sigmoid and tanh
 * take an exponential and a division each, which is what bounds the scan on a fast GPU. */
#pragma once

#include "cuda/storage.cuh"

#ifdef __CUDACC__
__device__ __forceinline__ float exponential(float x) { return __expf(x); }
__device__ __forceinline__ float reciprocal(float x) { return __fdividef(1.f, x); }
__device__ __forceinline__ float approximate_tanh(float x) {
    float result;
    asm("tanh.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}
#endif

#ifdef APPROXIMATE_TANH
__device__ __forceinline__ float tanh_of(float x) { return approximate_tanh(x); }
__device__ __forceinline__ float sigmoid_of(float x) { return .5f + .5f * approximate_tanh(.5f * x); }
#else
__device__ __forceinline__ float sigmoid_of(float x) { return reciprocal(1.f + exponential(-x)); }
__device__ __forceinline__ float tanh_of(float x) { return 2.f * sigmoid_of(2.f * x) - 1.f; }
#endif

/* The forget gate of a direction. */
template <int N>
struct Gate {
    float memory[N][N], input[N][N], bias[N]; /* W_m, W_x, b */

    /* weight: (2, n, [W_m | W_x]), bias: (2, n), both for the two directions. */
    __device__ __forceinline__ void read(const float *weight, const float *biases, int direction) {
#pragma unroll
        for (int o = 0; o < N; o++) {
            const float *row = weight + (direction * N + o) * 2 * N;
#pragma unroll
            for (int i = 0; i < N; i++) memory[o][i] = row[i], input[o][i] = row[N + i];
            bias[o] = biases[direction * N + o];
        }
    }

    /* s = sigmoid(W_m m + W_x x + b)   (Eq. 5) */
    __device__ __forceinline__ void forget(const float (&m)[N], const float (&x)[N], float (&s)[N]) const {
#pragma unroll
        for (int o = 0; o < N; o++) {
            float sum = bias[o];
#pragma unroll
            for (int i = 0; i < N; i++) sum += memory[o][i] * m[i] + input[o][i] * x[i];
            s[o] = sigmoid_of(sum);
        }
    }

    /* m <- s m + (1 - s) x   (Eq. 6) */
    __device__ __forceinline__ void advance(float (&m)[N], const float (&x)[N]) const {
        float s[N];
        forget(m, x, s);
#pragma unroll
        for (int o = 0; o < N; o++) m[o] = x[o] + s[o] * (m[o] - x[o]);
    }
};
