"""The CUDA kernels compiled for two GPUs, an Orin and an H200, without either."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ccnet.contract import CCNetError
from ccnet.ops.cuda import nvrtc
from ccnet.ops.cuda.variants import CSRC, PooledVariant, ScanVariant

NVCC = shutil.which("nvcc")
CAPABILITIES = ((8, 7), (9, 0))
MAX_REGISTERS = 168  # of 255, so that a multiprocessor holds 384 threads of the largest kernel
VARIANTS = [
    *(ScanVariant(heads=heads, storage="float") for heads in (1, 2, 4)),
    *(ScanVariant(heads=heads, storage="Half", pixels=2, approximate=True) for heads in (1, 2, 4)),
    *(PooledVariant(heads=heads, storage="float") for heads in (1, 2, 4)),
    *(PooledVariant(heads=heads, storage="Half", approximate=True) for heads in (1, 2, 4)),
]


def has_nvrtc() -> bool:
    try:
        return bool(nvrtc.nvrtc())
    except CCNetError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc, of CUDA's toolkit")
@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda capability: "sm_{}{}".format(*capability))
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_nvcc_keeps_all_in_registers(
    variant: ScanVariant | PooledVariant, capability: tuple[int, int], tmp_path: Path
) -> None:
    definitions = [f"-D{name}={value}" for name, value in variant.definitions.items()]
    flags = ["-std=c++17", "-Xptxas", "-v", "-cubin", "-arch=sm_{}{}".format(*capability), f"-I{CSRC}"]
    command = [NVCC, *flags, *definitions, CSRC / "cuda" / variant.source, "-o", tmp_path / "kernel.cubin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    kernels = 1 if isinstance(variant, PooledVariant) else 2
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert spills == [("0", "0", "0")] * kernels
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", done.stderr)]
    assert len(registers) == kernels
    assert max(registers) <= MAX_REGISTERS
    shared = [int(size) for size in re.findall(r"(\d+) bytes smem", done.stderr)]
    assert max(shared, default=0) <= 48 * 1024


@pytest.mark.slow
@pytest.mark.skipif(not has_nvrtc(), reason="needs NVRTC: CUDA's toolkit, or pip install nvidia-cuda-nvrtc")
@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda capability: "sm_{}{}".format(*capability))
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_nvrtc_compiles_without_a_toolkit(variant: ScanVariant | PooledVariant, capability: tuple[int, int]) -> None:
    cubin = nvrtc.compile_cubin(variant, capability)
    assert cubin.startswith(b"\x7fELF")
    name = b"ccnet_pooled_nescm" if isinstance(variant, PooledVariant) else b"ccnet_scan_backward"
    assert name in cubin
