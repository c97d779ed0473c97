/* CUDA's part of C++ on a CPU, for the arithmetic and the barriers of the kernels in ccnet/csrc/cuda.
 *
 * Each thread of a block is a coroutine. __syncthreads() hands over to the next thread, in ascending or descending order
 * of their numbers: a result that depends on the order lacks a barrier. A barrier that only some threads of a block
 * reach ends the process. */
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <functional>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static /* blocks run one after the other */

struct Index {
    unsigned x, y, z;
};

static Index threadIdx, blockIdx, gridDim;

/* A thread of the block that runs. */
struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    bool finished;
};

static ucontext_t scheduler;
static Thread *running;
static std::function<void()> kernel; /* called once by each thread */

static inline void __syncthreads() { swapcontext(&running->context, &scheduler); }

static void run_thread() {
    kernel();
    running->finished = true;
}

/* Let each thread of the block run up to its next barrier or its end; return how many have ended in all. */
static size_t run_to_barrier(std::vector<Thread> &threads, bool descending) {
    size_t finished = 0;
    for (size_t turn = 0; turn < threads.size(); turn++) {
        const size_t index = descending ? threads.size() - 1 - turn : turn;
        running = &threads[index];
        threadIdx = {(unsigned)index, 0, 0};
        if (!running->finished) swapcontext(&scheduler, &running->context);
        finished += running->finished;
    }
    return finished;
}

static void run_grid(Index grid, unsigned block, bool descending) {
    std::vector<Thread> threads(block);
    gridDim = grid;
    for (unsigned index = 0; index < grid.x * grid.y * grid.z; index++) {
        blockIdx = {index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
        for (auto &thread : threads) {
            thread.stack.resize(1 << 16);
            thread.finished = false;
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.data();
            thread.context.uc_stack.ss_size = thread.stack.size();
            thread.context.uc_link = &scheduler;
            makecontext(&thread.context, run_thread, 0);
        }
        for (size_t finished = 0; finished < block;) {
            finished = run_to_barrier(threads, descending);
            if (finished && finished < block) {
                fprintf(stderr, "only some threads of a block reach a barrier\n");
                abort();
            }
        }
    }
}

#ifdef __aarch64__
typedef __fp16 Float16;
#else
typedef _Float16 Float16;
#endif

struct Half {
    unsigned short bits;
};

static inline float to_float(Half number) {
    Float16 value;
    __builtin_memcpy(&value, &number, sizeof value);
    return (float)value;
}

static inline Half to_half(float number) {
    const Float16 value = (Float16)number;
    Half result;
    __builtin_memcpy(&result, &value, sizeof result);
    return result;
}

static inline float exponential(float x) { return expf(x); }
static inline float reciprocal(float x) { return 1.f / x; }

/* tanh to 11 bits, as CUDA's instruction computes it. */
static inline float approximate_tanh(float x) {
    int exponent;
    const float fraction = frexpf(tanhf(x), &exponent);
    return ldexpf(rintf(fraction * 2048.f) / 2048.f, exponent);
}
