"""Several processes, started by ``torchrun``, that train one network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the other processes of ``torchrun`` while the context lasts; without ``torchrun``, do nothing.

    Args:
        device: ``cpu`` or ``cuda``.

    Yields:
        The device of this process: with several GPUs, the GPU of its local rank.
    """
    if not dist.is_torchelastic_launched():
        yield device
        return
    gpu = device == "cuda"
    local_rank = int(os.environ["LOCAL_RANK"])
    if gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield f"cuda:{local_rank}" if gpu else device
    finally:
        dist.destroy_process_group()


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; 0 and 1 without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
