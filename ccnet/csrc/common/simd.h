/* Compiler attributes: kernel versions for several generations of processors, forced inlining and symbol visibility. */
#pragma once

/* CLONES compiles a function once for each instruction set; the loader picks the version that the processor supports.
 * REGISTER: floats in a vector register, for code that chooses its vector length itself, because a compiler keeps
 * vectors that are longer than a register in memory. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12 && !defined(CCNET_NO_CLONES)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define REGISTER (__builtin_cpu_supports("avx512vl") ? 16 : __builtin_cpu_supports("avx2") ? 8 : 4)
#else
#define CLONES
#define REGISTER 4
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#define HIDDEN
#else
#define EXPORT __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))
#endif
