"""The scan by Triton and by CUDA, and NeSCM with SIA's pooling: right, and how far from what memory allows."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnet.ops.cuda.pooled_nescm import cuda_pooled_nescm
from ccnet.ops.cuda.scan import cuda_scan, cuda_scan_backward
from ccnet.ops.cuda.variants import ScanVariant, Storage
from ccnet.ops.nescm import nescm
from ccnet.ops.scan import scan_reference

from .rig import Rig, Row

_BANDS, _GROUPS = 32, 4
_CACHE = 60e6  # bytes of an H200's second-level cache
_BANDWIDTH = 4.3e12  # bytes a second of an H200, read and written
_DTYPES: dict[Storage, torch.dtype] = {"Half": torch.float16, "float": torch.float32}


@dataclass(frozen=True)
class Case:
    """The scan of a scale of a 512×512 tile: x (1, n, T, H, W) and its gates."""

    heads: int
    x: Tensor
    weight: Tensor
    bias: Tensor

    @functools.cached_property
    def expected(self) -> Tensor:
        """Streams of the reference in float64."""
        return scan_reference(*(tensor.double() for tensor in (self.x, self.weight, self.bias)))

    @property
    def moved(self) -> int:
        """Bytes that a scan must move: x read, four streams written."""
        return 5 * self.x.numel() * self.x.element_size()

    def row(self, rig: Rig, name: str, scan: Callable[[Tensor], Tensor]) -> Row:
        """Return a scan's time beside the roofline, and its error."""
        error = (scan(self.x).double() - self.expected).abs().max().item()
        # Copies of x, with their results together larger than the cache
        count = max(2, int(2 * _CACHE // self.moved)) if rig.on_gpu else 1
        works = [functools.partial(scan, self.x.clone()) for _ in range(count)]
        value, target = rig.kernel_microseconds(works), 1e6 * self.moved / _BANDWIDTH
        return Row(name=name, value=value, unit="µs", target=target, note=f"error {error:.1e}")


def run(rig: Rig) -> None:
    """Measure the scan at each scale, then NeSCM with SIA's pooling, then the gradients of a training batch."""
    triton = _triton(rig)
    scales = rig.size((1, 2, 4), (2,))
    for heads in scales:
        for storage, dtype in _DTYPES.items():
            case = _case(rig, heads, dtype)
            if triton is not None and storage == "float":
                _measure_triton(rig, triton, case)
            if rig.runs_kernels:
                _measure_cuda(rig, case, storage)
    for heads in scales:
        _measure_pooled(rig, heads)
        _measure_gradients(rig, triton, heads)


def _case(rig: Rig, heads: int, dtype: torch.dtype) -> Case:
    side = rig.size(512, 16) // heads
    x = torch.randn(1, heads, _BANDS, side, side, device=rig.device).to(dtype)
    return Case(heads, x, *_gates(rig, heads))


def _gates(rig: Rig, heads: int) -> tuple[Tensor, Tensor]:
    weight, bias = (torch.randn(shape, device=rig.device) for shape in ((2, heads, 2 * heads), (2, heads)))
    return weight, bias


def _triton(rig: Rig) -> Any:
    """Return the module of Triton's kernels, or None."""
    if not rig.on_gpu:
        return None
    try:
        from ccnet.ops import scan_triton
    except ImportError:
        return None
    return scan_triton


def _measure_triton(rig: Rig, triton: Any, case: Case) -> None:
    usual = triton.BLOCK, triton.WARPS
    for block, warps in (usual, (256, 4), (256, 8), (64, 2)):
        triton.BLOCK, triton.WARPS = block, warps
        name = f"scan n={case.heads}, float, Triton, block {block}, {warps} warps"
        scan = functools.partial(triton.triton_scan, weight=case.weight, bias=case.bias)
        rig.attempt(name, "µs", functools.partial(case.row, rig, name, scan))
    triton.BLOCK, triton.WARPS = usual


def _measure_cuda(rig: Rig, case: Case, storage: Storage) -> None:
    for variant in _variants(rig, case.heads, storage):
        size = f"{variant.pixels} px, {variant.threads} threads"
        name = f"scan n={case.heads}, {storage}, CUDA, {size}, {_tanh(variant.approximate)}"
        scan = functools.partial(cuda_scan, weight=case.weight, bias=case.bias, variant=variant)
        rig.attempt(name, "µs", functools.partial(case.row, rig, name, scan))


def _variants(rig: Rig, heads: int, storage: Storage) -> Iterator[ScanVariant]:
    sizes = itertools.product(rig.size((1, 2, 4), (2,)), rig.size((128, 256), (64,)))
    for (pixels, threads), approximate in itertools.product(sizes, (False, True) if storage == "Half" else (False,)):
        yield ScanVariant(heads=heads, storage=storage, pixels=pixels, threads=threads, approximate=approximate)


def _tanh(approximate: bool) -> str:
    return "approximate tanh" if approximate else "exact tanh"


def _measure_pooled(rig: Rig, heads: int) -> None:
    """Measure NeSCM with SIA's pooling on FP16 features beside the same in torch's operators."""
    case = _case(rig, heads, torch.float16)
    x = case.x.flatten(1, 2).contiguous()
    output = 0.2 * torch.randn(2, heads, heads, 3, 3, 3, device=rig.device)
    weights = (case.weight, case.bias, output, torch.randn(heads, device=rig.device))

    def reference() -> Tensor:
        features = nescm(x.float(), _GROUPS, *weights).unflatten(1, (_GROUPS, -1))
        return torch.stack([features.mean(2), features.amax(2)], 2).flatten(1, 2)

    with torch.inference_mode():
        expected, name = reference(), f"NeSCM pooled n={heads}"
        target = 1e6 * (x.numel() + expected.numel()) * x.element_size() / _BANDWIDTH
        usual = Row(name=f"{name}, torch, float", value=rig.kernel_microseconds([reference]), unit="µs", target=target)
        rig.emit(usual)
        for approximate in (False, True) if rig.runs_kernels else ():
            work = functools.partial(cuda_pooled_nescm, x, _GROUPS, *weights, approximate=approximate)
            named = f"{name}, CUDA, Half, {_tanh(approximate)}"
            rig.attempt(named, "µs", functools.partial(_pooled_row, rig, named, work, expected, target))


def _pooled_row(rig: Rig, name: str, work: Callable[[], Tensor], expected: Tensor, target: float) -> Row:
    error = (work().float() - expected).abs().max().item()
    value = rig.kernel_microseconds([work] * rig.size(10, 1))
    return Row(name=name, value=value, unit="µs", target=target, note=f"error {error:.1e}")


def _measure_gradients(rig: Rig, triton: Any, heads: int) -> None:
    """Measure the gradient of the paper's batch, 20 patches of 128×128 pixels."""
    side, images = rig.size(128, 8) // heads, rig.size(20, 1)
    x = torch.randn(images, heads, _BANDS, side, side, device=rig.device)
    leaves = [tensor.requires_grad_() for tensor in (x, *_gates(rig, heads))]
    u = scan_reference(*leaves)
    grad = torch.randn_like(u)
    expected = torch.autograd.grad(u, leaves, grad)
    inputs = (grad, *(tensor.detach() for tensor in leaves))
    passes: dict[str, Callable[..., tuple[Tensor, ...]]] = {"CUDA": cuda_scan_backward} if rig.runs_kernels else {}
    if triton is not None:
        passes["Triton"] = triton.triton_scan_backward
    for kernel, backward in passes.items():
        name = f"gradient n={heads}, {images} patches, {kernel}"
        work = functools.partial(backward, *inputs)
        target = 1e6 * 6 * x.numel() * x.element_size() / _BANDWIDTH  # x and u's gradient read, x's written
        rig.attempt(name, "µs", functools.partial(_gradient_row, rig, name, work, expected, target))


def _gradient_row(
    rig: Rig, name: str, work: Callable[[], tuple[Tensor, ...]], expected: tuple[Tensor, ...], target: float
) -> Row:
    pairs = zip(work(), expected, strict=True)
    error = max(((actual - right).abs().max() / right.abs().max()).item() for actual, right in pairs)
    value = rig.kernel_microseconds([work])
    return Row(name=name, value=value, unit="µs", target=target, note=f"relative error {error:.1e}")
