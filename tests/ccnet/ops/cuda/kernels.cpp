/* The CUDA kernels of this package as functions of a shared library, for one number of heads and one storage. */
#include "on_cpu.h"

#ifdef POOLED
#include "cuda/pooled_nescm.cu"
#else
#include "cuda/scan.cu"
#endif

extern "C" {
#ifdef POOLED
void pooled_nescm(const Index *grid, int descending, const STORAGE *x, const float *forget, const float *forget_bias,
                  const float *output, const float *output_bias, STORAGE *y, int bands, int groups, int height,
                  int width) {
    kernel = [=] { ccnet_pooled_nescm(x, forget, forget_bias, output, output_bias, y, bands, groups, height, width); };
    run_grid(*grid, THREADS, descending);
}
#else
void scan(const Index *grid, int descending, const STORAGE *x, const float *weight, const float *bias, STORAGE *u,
          int bands, int plane, int memories) {
    kernel = [=] { ccnet_scan(x, weight, bias, u, bands, plane, memories); };
    run_grid(*grid, THREADS, descending);
}

void scan_backward(const Index *grid, int descending, const float *x, const float *weight, const float *bias,
                   const float *memories, const float *grad, float *g_x, float *partial, int bands, int plane) {
    kernel = [=] { ccnet_scan_backward(x, weight, bias, memories, grad, g_x, partial, bands, plane); };
    run_grid(*grid, THREADS, descending);
}
#endif
}
