/* The types of numbers in memory: float, or Half, the 16 bits of an FP16 number. All arithmetic is in float.
 *
 * No header of CUDA's is needed, so NVRTC compiles these files without a toolkit. What is CUDA's own, inside
 * #ifdef __CUDACC__ here and in recurrence.cuh, comes from tests/ccnet/ops/cuda/on_cpu.h for other compilers. */
#pragma once

#ifdef __CUDACC__
struct Half {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(Half number) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(number.bits));
    return result;
}

__device__ __forceinline__ Half to_half(float number) {
    Half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(number));
    return result;
}
#endif

__device__ __forceinline__ float to_float(float number) { return number; }

template <typename Number>
__device__ __forceinline__ Number stored(float number);

template <>
__device__ __forceinline__ float stored<float>(float number) {
    return number;
}

template <>
__device__ __forceinline__ Half stored<Half>(float number) {
    return to_half(number);
}

/* COUNT numbers side by side, which one instruction loads or stores. */
template <typename Number, int COUNT>
struct alignas(COUNT * sizeof(Number)) Vector {
    Number at[COUNT];
};

template <typename Number, int COUNT>
__device__ __forceinline__ void load(const Number *from, float (&to)[COUNT]) {
    const auto vector = *reinterpret_cast<const Vector<Number, COUNT> *>(from);
#pragma unroll
    for (int index = 0; index < COUNT; index++) to[index] = to_float(vector.at[index]);
}

template <typename Number, int COUNT>
__device__ __forceinline__ void store(const float (&from)[COUNT], Number *to) {
    Vector<Number, COUNT> vector;
#pragma unroll
    for (int index = 0; index < COUNT; index++) vector.at[index] = stored<Number>(from[index]);
    *reinterpret_cast<Vector<Number, COUNT> *>(to) = vector;
}
