"""The scan's Triton kernels against the reference in float64: on a GPU, and in Triton's interpreter without one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ccnet.ops import kernels
from ccnet.ops.scan import scan, scan_reference
from ccnet.runtime.quality.tolerances import TOLERANCES

LIMIT = TOLERANCES["scan"].max_abs
NAMES = ("u", "x", "weight", "bias")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton (in the dev extra on Linux x86-64)"
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a torch that finds a CUDA device")

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(heads: int, bands: int, *space: int, batch: int = 2) -> Inputs:
    """x (B, n, T, H, W), weight (2, n, 2n), bias (2, n), float64 but of values that float32 holds."""
    shapes = (batch, heads, bands, *space), (2, heads, 2 * heads), (2, heads)
    x, weight, bias = (torch.randn(shape).double() for shape in shapes)
    return x, weight, bias


def results(given: Inputs, grad: Tensor) -> tuple[Tensor, ...]:
    """u by the operator and the gradients of x, weight and bias."""
    leaves = tuple(t.detach().requires_grad_() for t in given)
    u = scan(*leaves)
    return u.detach(), *torch.autograd.grad(u, leaves, grad)


def distances(actual: tuple[Tensor, ...], given: Inputs, grad: Tensor) -> dict[str, float]:
    """Largest distance to the reference in float64, relative to the largest value where that exceeds 1."""
    leaves = tuple(t.detach().double().requires_grad_() for t in given)
    u = scan_reference(*leaves)
    expected = (u.detach(), *torch.autograd.grad(u, leaves, grad.double()))
    pairs = zip(NAMES, actual, expected, strict=True)
    return {name: ((a - e).abs().max() / max(1.0, e.abs().max().item())).item() for name, a, e in pairs}


def assert_near(far: dict[str, float]) -> None:
    assert LIMIT is not None
    assert {name: distance for name, distance in far.items() if not distance <= LIMIT} == {}


# On a GPU --------------------------------------------------------------------------------------------------------


def on_gpu(given: Inputs) -> Inputs:
    x, weight, bias = (t.to("cuda", torch.float32) for t in given)
    assert kernels.triton_supported(x, *x.shape[1:3])
    return x, weight, bias


@pytest.mark.gpu
@needs_cuda
@needs_triton
@pytest.mark.parametrize("bands", [1, 31, 32, 64])
@pytest.mark.parametrize("space", [(1, 1), (5, 13), (8, 125)], ids=lambda s: f"{s[0] * s[1]} px")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_gpu_matches_the_reference(heads: int, space: tuple[int, int], bands: int) -> None:
    given = on_gpu(inputs(heads, bands, *space))
    grad = torch.randn(2, 4, heads, bands, *space, device="cuda")
    assert_near(distances(results(given, grad), given, grad))


@pytest.mark.gpu
@needs_cuda
@needs_triton
def test_gpu_accepts_any_strides() -> None:
    x, weight, bias = on_gpu(inputs(2, 31, 6, 5))
    strided = x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    assert torch.equal(scan(strided, weight.mT.contiguous().mT, bias), scan(x, weight, bias))


@pytest.mark.gpu
@needs_cuda
@needs_triton
def test_gradients_on_a_gpu_repeat_exactly() -> None:
    given = on_gpu(inputs(2, 32, 20, 20))
    grad = torch.randn(2, 4, 2, 32, 20, 20, device="cuda")
    first, second = results(given, grad), results(given, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.gpu
@needs_cuda
@needs_triton
def test_operator_passes_torchs_operator_check_on_a_gpu() -> None:
    given = on_gpu(inputs(2, 5, 2, 3))
    torch.library.opcheck(torch.ops.ccnet.scan_backward, (scan(*given), *given))
    torch.library.opcheck(torch.ops.ccnet.scan, tuple(t.requires_grad_() for t in given))


# Without one -----------------------------------------------------------------------------------------------------

# Two blocks of pixels, of which the second is not full
CASES = {f"{heads} heads, {bands} bands": (heads, bands, 2, 70) for heads in (1, 2, 4) for bands in (1, 3)}

# Triton reads TRITON_INTERPRET when it is imported, so the kernels run in a process of their own. There the operator is
# told that a CPU's tensors fit them, the rest is as on a GPU.
INTERPRET = """
import sys, torch
import ccnet.ops.scan
ccnet.ops.scan.triton_supported = lambda *given: True
given, grads = torch.load(sys.argv[1])
def results(leaves, grad):
    u = ccnet.ops.scan.scan(*leaves)
    return u.detach(), *torch.autograd.grad(u, leaves, grad)
torch.save({name: results(leaves, grads[name]) for name, leaves in given.items()}, sys.argv[2])
assert "ccnet.ops.scan_triton" in sys.modules
"""


def run(script: str, *arguments: object, **environment: str) -> str:
    """The output of a Python process."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    given = {**os.environ, **environment}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def interpreted(folder: Path, given: dict[str, Inputs], grads: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
    leaves = {name: tuple(t.float().requires_grad_() for t in each) for name, each in given.items()}
    torch.save((leaves, grads), folder / "given.pt")
    run(INTERPRET, folder / "given.pt", folder / "results.pt", TRITON_INTERPRET="1")
    results: dict[str, tuple[Tensor, ...]] = torch.load(folder / "results.pt")
    return results


@pytest.mark.slow
@needs_triton
def test_interpreted_kernel_matches_the_reference(tmp_path: Path) -> None:
    given = {name: inputs(*shape) for name, shape in CASES.items()}
    x, weight, bias = given["saturated"] = inputs(2, 3, 1, 5)
    x *= 1e4
    # Memory in another order than the axes', as after a permute
    x, weight, bias = inputs(4, 3, 1, 5)
    given["strided"] = x.mT.contiguous().mT, weight.mT.contiguous().mT, bias
    grads = {name: torch.randn(2, 4, *each[0].shape[1:]) for name, each in given.items()}
    actual = interpreted(tmp_path, given, grads)
    for name, each in given.items():
        far = distances(actual[name], each, grads[name])
        assert_near({f"{name}: {key}": distance for key, distance in far.items()})


@pytest.mark.slow
@needs_triton
def test_interpreted_kernel_hides_no_nan(tmp_path: Path) -> None:
    given = {name: inputs(2, 3, 1, 5) for name in NAMES[1:]}
    for index, name in enumerate(given):
        given[name][index].view(-1)[1] = torch.nan
    grads = {name: torch.randn(2, 4, 2, 3, 1, 5) for name in given}
    for name, (u, *_) in interpreted(tmp_path, given, grads).items():
        assert torch.equal(u.isnan(), scan_reference(*given[name]).isnan())


# As at a launch: 1 is a constant to Triton
COMPILE = """
import json
import triton
from triton.backends.compiler import GPUTarget
from ccnet.ops.scan_triton import BLOCK, WARPS, backward_kernel, forward_kernel

def compiled(kernel, **constants):
    constants = {"BLOCK": BLOCK, **constants}
    types = {"bands": "i32", "plane": "i32", **dict.fromkeys(constants, "constexpr")}
    signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": WARPS}).asm["ptx"]

in_memory = {}
for n in (1, 2, 4):
    for size in ({}, {"bands": 1}, {"plane": 1}):
        ptx = [compiled(forward_kernel, N=n, MEMORIES=flag, **size) for flag in (False, True)]
        ptx.append(compiled(backward_kernel, N=n, **size))
        in_memory[f"{n} heads, {size}"] = [text.count(".local") for text in ptx]
print(json.dumps(in_memory))
"""


@pytest.mark.slow
@needs_triton
def test_kernels_compile_without_a_gpu(tmp_path: Path) -> None:
    """To machine code for compute capability 8.0; all that they keep is in registers as far as PTX says."""
    in_memory = json.loads(run(COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)))
    assert len(in_memory) == 9
    assert all(counts == [0, 0, 0] for counts in in_memory.values()), in_memory


def test_importing_ccnet_imports_no_triton() -> None:
    script = (
        "import sys, ccnet.model, ccnet.ops.scan; assert not {'triton', 'ccnet.ops.scan_triton'} & set(sys.modules)"
    )
    run(script)


def test_cpu_tensors_never_run_triton() -> None:
    assert not kernels.triton_supported(torch.zeros(1, 1, 4, 2, 2), 1, 4)
