"""The roofline of a part: an estimate of the least time that this machine could compute it in.

A part takes at least as long as its convolutions and products at the rate of a large matrix product, and as its inputs,
weights and outputs at the rate of a copy in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ccnet.ops.kernels import reference_ops

from .timing import timed


@dataclass(frozen=True, kw_only=True)
class Rates:
    """This machine's rates: bytes per second copied (read and written), operations per second in a product."""

    copy: float
    product: float


def measure_rates(repeats: int = 5) -> Rates:
    """Measure the rates; the best of some repetitions."""
    source, target = torch.rand(1 << 25), torch.empty(1 << 25)  # 128 MB, beyond any cache
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    copies = min(timed(lambda: target.copy_(source))[0] for _ in range(repeats))
    products = min(timed(lambda: a @ b)[0] for _ in range(repeats))
    return Rates(copy=2 * source.nbytes / copies, product=2 * 1024**3 / products)


@torch.inference_mode()
def roofline(run: Callable[..., Tensor], module: nn.Module, inputs: list[Tensor], rates: Rates) -> float:
    """Estimate the least time of ``run(*inputs)``, milliseconds.

    Args:
        run: The part's function; torch counts its convolutions and products.
        module: The part, for the bytes of its weights.
        inputs: Example tensors.
        rates: This machine's rates.

    Returns:
        The larger of arithmetic time and memory time, milliseconds.
    """
    with reference_ops(), FlopCounterMode(display=False) as counter:  # inside a kernel nothing is counted
        result = run(*inputs)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    moved = sum(tensor.nbytes for tensor in inputs) + result.nbytes + weights
    return 1e3 * max(float(counter.get_total_flops()) / rates.product, moved / rates.copy)
