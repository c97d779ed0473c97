/* NeSCM's recurrence over the bands (ccnet/ops/scan.py holds the equations) and its gradient.
 *
 * A thread runs both streams of a direction for PIXELS pixels side by side: the leading stream's band is the centre
 * stream's next one, so that each band is loaded once a direction. blockIdx.x: pixels; blockIdx.y: 2 image + direction.
 *
 * The compiler is told HEADS (n), STORAGE (float or Half), PIXELS and THREADS (of a block).
 * Layout: x (B, n, T, plane), u (B, 4, n, T, plane), weight (2, n, 2n) and bias (2, n) float. */
#include "cuda/recurrence.cuh"

typedef float Heads[HEADS];

/* Load a band of all heads; zeros where `exists` is 0. */
template <int COUNT>
__device__ __forceinline__ void load_heads(const STORAGE *x, long head_size, int exists, float (&to)[COUNT][HEADS]) {
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
        float pixels[COUNT] = {};
        if (exists) load(x + i * head_size, pixels);
#pragma unroll
        for (int p = 0; p < COUNT; p++) to[p][i] = pixels[p];
    }
}

/* Advance a stream by one band, and store tanh(m) + x, or m itself. */
__device__ __forceinline__ void run_step(const Gate<HEADS> &gate, float (&m)[PIXELS][HEADS],
                                         const float (&x)[PIXELS][HEADS], STORAGE *to, long head_size, int memories) {
#pragma unroll
    for (int p = 0; p < PIXELS; p++) gate.advance(m[p], x[p]);
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
        float result[PIXELS];
#pragma unroll
        for (int p = 0; p < PIXELS; p++) result[p] = memories ? m[p][i] : tanh_of(m[p][i]) + x[p][i];
        store(result, to + i * head_size);
    }
}

/* Store u of all streams, or their m_t where `memories` is set. plane is a multiple of PIXELS. */
extern "C" __global__ void __launch_bounds__(THREADS)
    ccnet_scan(const STORAGE *__restrict__ x, const float *__restrict__ weight, const float *__restrict__ bias,
               STORAGE *__restrict__ u, int bands, int plane, int memories) {
    const long pixel = ((long)blockIdx.x * THREADS + threadIdx.x) * PIXELS;
    if (pixel >= plane) return;
    const int direction = blockIdx.y % 2;
    const long head_size = (long)bands * plane, first = direction ? head_size - plane : 0;
    const long stride = direction ? -(long)plane : plane;
    Gate<HEADS> gate;
    gate.read(weight, bias, direction);
    x += blockIdx.y / 2 * HEADS * head_size + first + pixel;
    STORAGE *centre = u + (blockIdx.y * 2l) * HEADS * head_size + first + pixel;
    STORAGE *lead = centre + HEADS * head_size;

    float m_centre[PIXELS][HEADS] = {}, m_lead[PIXELS][HEADS] = {}, now[PIXELS][HEADS], next[PIXELS][HEADS];
    load_heads(x, head_size, 1, now);
#pragma unroll 4
    for (int t = 0; t < bands; t++) {
        x += stride;
        load_heads(x, head_size, t + 1 < bands, next);
        run_step(gate, m_centre, now, centre, head_size, memories);
        run_step(gate, m_lead, next, lead, head_size, memories);
#pragma unroll
        for (int p = 0; p < PIXELS; p++)
#pragma unroll
            for (int i = 0; i < HEADS; i++) now[p][i] = next[p][i];
        centre += stride;
        lead += stride;
    }
}

/* The gradients that a thread of ccnet_scan_backward adds up over the steps of both streams. */
struct Sums {
    float memory[HEADS][HEADS], input[HEADS][HEADS], bias[HEADS]; /* of W_m, W_x, b */
};

/* Go back by one step of a stream: m is m_t and becomes `previous`, m_{t-1}; g_m becomes that of m_{t-1}; g_x is set. */
__device__ __forceinline__ void step_back(const Gate<HEADS> &gate, const Heads &x, const Heads &g_u,
                                          const Heads &previous, Heads &m, Heads &g_m, Heads &g_x, Sums &sums) {
    Heads s, g_gate;
    gate.forget(previous, x, s);
#pragma unroll
    for (int o = 0; o < HEADS; o++) {
        const float tanh = tanh_of(m[o]);
        g_m[o] += g_u[o] * (1.f - tanh * tanh);
        g_gate[o] = g_m[o] * (previous[o] - x[o]) * s[o] * (1.f - s[o]);
        g_x[o] = g_u[o] + g_m[o] * (1.f - s[o]);
        g_m[o] *= s[o];
        sums.bias[o] += g_gate[o];
    }
#pragma unroll
    for (int o = 0; o < HEADS; o++)
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            g_x[i] += gate.input[o][i] * g_gate[o];
            g_m[i] += gate.memory[o][i] * g_gate[o];
            sums.memory[o][i] += g_gate[o] * previous[i];
            sums.input[o][i] += g_gate[o] * x[i];
        }
#pragma unroll
    for (int o = 0; o < HEADS; o++) m[o] = previous[o];
}

/* Add a number up over the block, and let its first thread store it. Always in the same order, so that training
 * repeats exactly. */
__device__ __forceinline__ void store_block_sum(float number, float *to) {
    __shared__ float numbers[THREADS];
    numbers[threadIdx.x] = number;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) numbers[threadIdx.x] += numbers[threadIdx.x + half];
    }
    if (!threadIdx.x) *to = numbers[0];
    __syncthreads();
}

/* Run both streams of a direction backwards. One pixel a thread, float; THREADS is a power of two.
 *
 * memories, grad (B, 4, n, T, plane): m_t, and the gradient of u. g_x (B, direction, n, T, plane): a direction's part of
 * the gradient of x. partial (B, direction, block, n, [W_m | W_x | b]): a block's part of the gradients of the gates. */
extern "C" __global__ void __launch_bounds__(THREADS)
    ccnet_scan_backward(const float *__restrict__ x, const float *__restrict__ weight, const float *__restrict__ bias,
                        const float *__restrict__ memories, const float *__restrict__ grad, float *__restrict__ g_x,
                        float *__restrict__ partial, int bands, int plane) {
    const long pixel = (long)blockIdx.x * THREADS + threadIdx.x;
    const int direction = blockIdx.y % 2, inside = pixel < plane;
    const long head_size = (long)bands * plane, stream_size = HEADS * head_size;
    const long stride = direction ? -(long)plane : plane, last = (direction ? 0 : head_size - plane) + pixel;
    Gate<HEADS> gate;
    gate.read(weight, bias, direction);
    x += blockIdx.y / 2 * stream_size + last;
    g_x += blockIdx.y * stream_size + last;
    memories += blockIdx.y * 2l * stream_size + last;
    grad += blockIdx.y * 2l * stream_size + last;

    Sums sums = {};
    Heads m[2], g_m[2] = {}, x_ahead = {}, g_ahead = {}; /* of the band one step later: x, and the centre's part of g_x */
    for (int i = 0; i < HEADS; i++)
        for (int lead = 0; lead < 2; lead++) m[lead][i] = inside ? memories[lead * stream_size + i * head_size] : 0.f;
    for (int t = bands - 1; inside && t >= 0; t--) {
        Heads x_t, g_u[2], previous[2], g_centre, g_lead;
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            x_t[i] = x[i * head_size];
#pragma unroll
            for (int lead = 0; lead < 2; lead++) {
                const long at = lead * stream_size + i * head_size;
                g_u[lead][i] = grad[at];
                previous[lead][i] = t ? memories[at - stride] : 0.f;
            }
        }
        step_back(gate, x_t, g_u[0], previous[0], m[0], g_m[0], g_centre, sums);
        step_back(gate, x_ahead, g_u[1], previous[1], m[1], g_m[1], g_lead, sums);
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            if (t + 1 < bands) g_x[i * head_size + stride] = g_ahead[i] + g_lead[i];
            if (!t) g_x[i * head_size] = g_centre[i];
            x_ahead[i] = x_t[i];
            g_ahead[i] = g_centre[i];
        }
        x -= stride, g_x -= stride, memories -= stride, grad -= stride;
    }

    partial += ((long)blockIdx.y * gridDim.x + blockIdx.x) * HEADS * (2 * HEADS + 1);
#pragma unroll
    for (int o = 0; o < HEADS; o++, partial += 2 * HEADS + 1) {
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            store_block_sum(sums.memory[o][i], partial + i);
            store_block_sum(sums.input[o][i], partial + HEADS + i);
        }
        store_block_sum(sums.bias[o], partial + 2 * HEADS);
    }
}
