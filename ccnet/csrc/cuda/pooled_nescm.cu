/* NeSCM for inference with SIA's pooling (Eq. 5 to 9) as one kernel: the features are read, and only each group's mean
 * and maximum are written. ccnet/ops/scan.py and ccnet/ops/output_gate.py hold the equations;
 * ccnet/csrc/inference/nescm.c is the same on a CPU.
 *
 * A block computes a tile of ROWS x COLUMNS pixels, with a thread for each pixel of the tile and of the ring of pixels
 * around it. At each step of a direction all threads scan, their u meets in shared memory, and the tile's threads add
 * what the 3x3 output gates read of it. The forward direction's gates wait in shared memory for the backward
 * direction's, because a maximum needs their sum. A pixel outside the image is zero in every band, and so is its u.
 *
 * The compiler is told HEADS (n), STORAGE (float or Half), ROWS, COLUMNS and MAX_BANDS. blockIdx: column and row of the
 * tile, image. Layout: x (B, C, H, W), channels ordered (group, head, band in group); y (B, k x [mean, maximum], H, W);
 * weights float: forget (2, n, 2n), forget_bias (2, n), output (2, n, n, 3, 3, 3), output_bias (n). */
#include "cuda/recurrence.cuh"

enum { WIDTH = COLUMNS + 2, THREADS = (ROWS + 2) * WIDTH, TAPS = 9, TRAIL = 0, CENTRE = 1, LEAD = 2 };

typedef float Heads[HEADS];

/* Filters of the output gates of a direction, by what they read: the band before, the band, the band ahead. */
typedef Vector<float, HEADS> Filters[3][HEADS][TAPS]; /* (slot, input head, tap), output heads side by side */

/* Copy a direction's filters to shared memory. The backward window is mirrored: its last slot trails. */
__device__ __forceinline__ void copy_filters(const float *output, int direction, Filters &filters) {
    for (int at = threadIdx.x; at < HEADS * HEADS * 3 * TAPS; at += THREADS) {
        const int tap = at % TAPS, slot = at / TAPS % 3, i = at / (3 * TAPS) % HEADS, o = at / (3 * TAPS * HEADS);
        filters[direction ? 2 - slot : slot][i][tap].at[o] = output[direction * HEADS * HEADS * 3 * TAPS + at];
    }
}

/* Add what the gates of a pixel read of a band: u of both streams (2, n, THREADS) around the thread's own. The trailing
 * slot reads this band one step later, so its part goes to `trail`. */
__device__ __forceinline__ void add_gates(const float (*u)[HEADS][THREADS], const Filters &filters, Heads &gates,
                                          Heads &trail) {
#pragma unroll
    for (int i = 0; i < HEADS; i++)
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            const int at = threadIdx.x + (tap / 3 - 1) * WIDTH + tap % 3 - 1;
            const float centre = u[0][i][at], lead = u[1][i][at];
#pragma unroll
            for (int o = 0; o < HEADS; o++) {
                gates[o] += filters[CENTRE][i][tap].at[o] * centre + filters[LEAD][i][tap].at[o] * lead;
                trail[o] += filters[TRAIL][i][tap].at[o] * centre;
            }
        }
}

/* Mean and maximum of a group's channels (Eq. 8, 9). */
struct Pool {
    float sum, maximum;

    __device__ __forceinline__ void add(float gate, int first) {
        sum = first ? gate : sum + gate;
        maximum = first || gate > maximum || gate != gate ? gate : maximum; /* keeps a NaN */
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
    ccnet_pooled_nescm(const STORAGE *__restrict__ x, const float *__restrict__ forget,
                       const float *__restrict__ forget_bias, const float *__restrict__ output,
                       const float *__restrict__ output_bias, STORAGE *__restrict__ y, int bands, int groups, int height,
                       int width) {
    __shared__ float u[2][2][HEADS][THREADS]; /* of this step and the step before, in turn */
    __shared__ float forward[MAX_BANDS][HEADS][ROWS * COLUMNS];
    __shared__ Filters filters;
    const int tile_row = (int)threadIdx.x / WIDTH - 1, tile_column = (int)threadIdx.x % WIDTH - 1;
    const int row = blockIdx.y * ROWS + tile_row, column = blockIdx.x * COLUMNS + tile_column;
    const int in_image = row >= 0 && row < height && column >= 0 && column < width;
    const int in_tile = tile_row >= 0 && tile_row < ROWS && tile_column >= 0 && tile_column < COLUMNS;
    const int slot = tile_row * COLUMNS + tile_column, run = bands / groups;
    const long plane = (long)height * width, pixel = (long)row * width + column;
    x += (long)blockIdx.z * HEADS * bands * plane + pixel;
    y += (long)blockIdx.z * 2 * groups * plane + pixel;

    Gate<HEADS> gate;
    Pool pool = {};
    for (int direction = 0; direction < 2; direction++) {
        __syncthreads(); /* the filters of the direction before are read */
        copy_filters(output, direction, filters);
        gate.read(forget, forget_bias, direction);
        Heads m[2] = {}, next, trail = {};
        const auto load_band = [&](int step) {
            const int band = direction ? bands - 1 - step : step;
#pragma unroll
            for (int i = 0; i < HEADS; i++)
                next[i] = in_image && step < bands
                              ? to_float(x[((band / run * HEADS + i) * run + band % run) * plane])
                              : 0.f;
        };
        load_band(0);
        for (int t = 0; t < bands; t++) {
            const int band = direction ? bands - 1 - t : t;
            Heads now;
#pragma unroll
            for (int i = 0; i < HEADS; i++) now[i] = next[i];
            load_band(t + 1);
            gate.advance(m[0], now);
            gate.advance(m[1], next);
#pragma unroll
            for (int i = 0; i < HEADS; i++) {
                u[t % 2][0][i][threadIdx.x] = tanh_of(m[0][i]) + now[i];
                u[t % 2][1][i][threadIdx.x] = tanh_of(m[1][i]) + next[i];
            }
            __syncthreads(); /* one a step is enough: the next step writes the other u */
            if (!in_tile || !in_image) continue;
            Heads gates;
#pragma unroll
            for (int o = 0; o < HEADS; o++) gates[o] = trail[o], trail[o] = 0.f;
            add_gates(u[t % 2], filters, gates, trail);
#pragma unroll
            for (int o = 0; o < HEADS; o++)
                if (!direction)
                    forward[band][o][slot] = gates[o];
                else
                    pool.add(gates[o] + forward[band][o][slot] + output_bias[o], band % run == run - 1 && !o);
            if (!direction || band % run) continue;
            y[(2l * (band / run)) * plane] = stored<STORAGE>(pool.sum / (HEADS * run));
            y[(2l * (band / run) + 1) * plane] = stored<STORAGE>(pool.maximum);
        }
    }
}
