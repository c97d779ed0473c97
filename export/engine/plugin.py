"""The kernels of TensorRT's plugin, compiled for the GPU that an engine is built for."""

from __future__ import annotations

from ccnet.contract import CCNetError
from ccnet.ops.cuda.nvrtc import compile_cubin
from ccnet.ops.cuda.variants import HEADS, PooledVariant
from ccnet.runtime.backends import architectures
from ccnet.runtime.backends.trt_plugin import CompiledKernel


def compile_kernels(gpu: str) -> dict[int, CompiledKernel]:
    """Compile the pooled NeSCM for FP16 features.

    Args:
        gpu: The GPU, as ``cuda.gpus`` names it.

    Returns:
        Number of heads → the kernel.

    Raises:
        CCNetError: The GPU's architecture is unknown, or NVRTC is missing or does not compile for it.
    """
    capability = architectures.capability(gpu)
    if capability is None:
        raise CCNetError(f"the architecture of {gpu} is unknown: build without --plugin")
    variants = {heads: PooledVariant(heads=heads, storage="Half") for heads in HEADS}
    return {
        heads: CompiledKernel(compile_cubin(variant, capability), *variant.tile, variant.threads)
        for heads, variant in variants.items()
    }
