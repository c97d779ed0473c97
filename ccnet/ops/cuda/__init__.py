"""The CUDA kernels of ``ccnet/csrc/cuda``: compiled by NVRTC at run time, launched through CUDA's driver library.

``variants`` and ``nvrtc`` need no torch, because ``ccnet build --plugin`` compiles a kernel on machines without it.
"""
