"""Regions that stay in float32 under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def float32_region(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off on the device of ``x``: for sums over many pixels and for the recurrence."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
