"""Training patches a second, with the scan's kernels of Triton and of CUDA, in float32 and bfloat16."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from ccnet.contract import BANDS_NM
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import SCAN_KERNEL
from ccnet.training.losses import ccnet_loss
from ccnet.training.recipe import Recipe

from .rig import Rig, Row


def run(rig: Rig) -> None:
    """Measure forward, loss, backward and Adam on the paper's batch of 20 patches of 128×128 px, and on one of 64."""
    for batch in rig.size((20, 64), (1,)):
        for kernel in ("triton", "cuda"):
            for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
                title = f"training, batch {batch}, {name}, scan by {kernel}"

                def measure(
                    batch: int = batch, kernel: str = kernel, dtype: torch.dtype | None = dtype, title: str = title
                ) -> Row:
                    os.environ[SCAN_KERNEL] = kernel
                    time_ms = rig.milliseconds(_step(rig, batch, dtype), repeats=10)
                    value = 1e3 * batch / time_ms
                    return Row(name=title, value=value, unit="patches/s", note=f"{time_ms:.1f} ms a step")

                rig.attempt(title, "patches/s", measure)
    os.environ.pop(SCAN_KERNEL, None)


def _step(rig: Rig, batch: int, dtype: torch.dtype | None) -> Callable[[], None]:
    """Return one update of the paper's network; a tiny one in a rehearsal."""
    model = CCNet(rig.size(CCNetConfig(), CCNetConfig(units=1))).to(rig.device)
    side = rig.size(Recipe().patch, 16)
    frames = torch.rand(batch, 3, side, side, device=rig.device)
    cubes = torch.rand(batch, len(BANDS_NM), side, side, device=rig.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=Recipe().lr, fused=True)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(rig.device, dtype or torch.bfloat16, enabled=dtype is not None):
            estimate = model(frames)
        ccnet_loss(cubes, estimate.float()).backward()
        optimizer.step()

    return update
