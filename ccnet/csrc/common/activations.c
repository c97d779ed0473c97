#include "common/activations.h"

/* In a file of their own, so that the compiler does not see them in the kernels. */
const float TANH_END = 9.f, SLOPE_END = 6.f;
