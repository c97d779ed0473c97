#include "common/activations.h"

const float TANH_END = 9.f, SLOPE_END = 6.f; /* in a file of their own, so that the kernels' compiler does not see them */
