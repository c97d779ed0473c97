"""The device, CPU threads and library versions of a training or an evaluation."""

from __future__ import annotations

import os
import platform
from typing import Annotated, Literal

import numpy as np
import typer

from ccnet import __version__
from ccnet.contract import CCNetError, core_quota

DeviceOption = Annotated[
    Literal["cpu", "cuda"] | None, typer.Option(help="Device to compute on; a GPU if available, else cpu.")
]


def select_device(device: str | None, threads: int | None) -> str:
    """Set the number of CPU threads and choose the device.

    Args:
        device: ``cpu`` or ``cuda``; None for a GPU if torch sees one, else the CPU.
        threads: CPU threads of torch; None leaves torch's own number.

    Returns:
        The device's name, for torch.

    Raises:
        CCNetError: ``cuda`` was chosen and torch sees no GPU.
    """
    import torch

    if threads := threads or core_quota():  # torch knows nothing of quotas
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise CCNetError("device is cuda, but this torch sees no CUDA GPU: use --device cpu or install torch for CUDA")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def warn_if_bfloat16_is_emulated(device: str) -> None:
    """Print a warning, in the first process only, if the device is a CPU without bfloat16 instructions."""
    import torch

    native = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    if device == "cpu" and not native and os.environ.get("RANK", "0") == "0":
        typer.echo("this CPU emulates bfloat16, which is many times slower than float32: leave --bf16 out", err=True)


def library_versions() -> dict[str, str]:
    """Return the versions that figures depend on, for reports: ccnet, Python, numpy and torch."""
    import torch

    return {
        "ccnet": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
