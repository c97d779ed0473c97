"""The network's operators, one a file: reference, gradient, and the choice among reference, C, Triton and CUDA.

The model calls the function that a file is named after. Its reference is the definition, in differentiable torch; where
a kernel supports the tensors (``kernels.cpu_kernel_supported``, ``kernels.triton_supported``) the function runs that
instead, with the same signature. ``kernels.reference_ops()`` switches all kernels off.
"""
