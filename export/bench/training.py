"""What our operators bring in training, on this machine: the paper's loop in plain torch through autograd against them.

Both sides of a comparison take turns in one run, so that whatever else the machine does meets them alike.
"""

from __future__ import annotations

import copy
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ccnet.contract import BANDS_NM
from ccnet.model import CCNet
from ccnet.model.blocks import NeSCM
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import reference_ops
from ccnet.ops.scan import STREAMS, scan, scan_reference
from ccnet.training.losses import ccnet_loss
from ccnet.training.recipe import Recipe

if TYPE_CHECKING:
    from rich.table import Table

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds of the repetitions."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(median=1e3 * statistics.median(seconds), least=1e3 * min(seconds), most=1e3 * max(seconds))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One piece of work done in two ways."""

    name: str
    naive: Timing
    ours: Timing

    @property
    def ratio(self) -> float:
        """How many times as fast ours is, by the medians."""
        return self.naive.median / self.ours.median


def compare(name: str, naive: Work, ours: Work, repeats: int) -> Comparison:
    """Both in turns, after one round that pays for the first use of everything."""
    rounds = [(_seconds(naive), _seconds(ours)) for _ in range(repeats + 1)][1:]
    slow, fast = zip(*rounds, strict=True)
    return Comparison(name=name, naive=Timing.of(slow), ours=Timing.of(fast))


def _seconds(work: Work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def works(config: CCNetConfig, patch: int, batches: Sequence[int]) -> Iterator[tuple[str, Work, Work]]:
    """What is compared, each as (name, naive, ours): the training step of so many patches, and for a single one NeSCM
    at its three scales and the scan alone."""
    torch.manual_seed(0)
    for batch in batches:
        yield _step(config, patch, batch)
    for scale in (1, 2, 4):
        yield _nescm(config, scale, patch)
    yield _scan(config, patch)


def with_loop(model: CCNet) -> CCNet:
    """A copy whose NeSCMs are the paper's loop; what else it is made of runs as torch's inside ``kernels.plain()``."""
    naive = copy.deepcopy(model)
    for part in naive.modules():
        if isinstance(part, NeSCM):
            part.forward = part.reference_loop  # type: ignore[method-assign]
    return naive


def _step(config: CCNetConfig, patch: int, batch: int) -> tuple[str, Work, Work]:
    """Forward, loss, backward and Adam of the whole network; naive as torch has each of them."""
    ours = CCNet(config)
    naive = with_loop(ours)
    frames, cubes = torch.rand(batch, 3, patch, patch), torch.rand(batch, len(BANDS_NM), patch, patch)

    def updates(model: CCNet, fused: bool | None = None) -> Work:
        optimizer = torch.optim.Adam(model.parameters(), lr=Recipe().lr, fused=fused)

        def update() -> None:
            optimizer.zero_grad(set_to_none=True)
            ccnet_loss(cubes, model(frames)).backward()
            optimizer.step()

        return update

    name = f"training step\n({batch}, 3, {patch}, {patch})"
    return name, reference_ops()(updates(naive)), updates(ours, fused=True)  # as train has it


def _nescm(config: CCNetConfig, scale: int, patch: int) -> tuple[str, Work, Work]:
    shape = 1, scale * config.width, patch // scale, patch // scale
    part = NeSCM(shape[1], config)
    x = torch.randn(shape, requires_grad=True)
    grad, leaves = torch.randn(shape), [x, *part.parameters()]
    naive, ours = (_backward(function, [x], leaves, grad) for function in (part.reference_loop, part))
    return f"NeSCM\n{shape}", naive, ours


def _scan(config: CCNetConfig, patch: int) -> tuple[str, Work, Work]:
    bands = config.width
    given = [
        tensor.requires_grad_()
        for tensor in (torch.randn(1, 1, bands, patch, patch), torch.randn(2, 1, 2), torch.randn(2, 1))
    ]
    grad = torch.randn(1, STREAMS, 1, bands, patch, patch)
    naive, ours = (_backward(function, given, given, grad) for function in (scan_reference, scan))
    return f"scan\n{tuple(given[0].shape)}", naive, ours


def _backward(function: Callable[..., Tensor], given: list[Tensor], leaves: list[Tensor], grad: Tensor) -> Work:
    return lambda: torch.autograd.grad(function(*given), leaves, grad)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def report(comparisons: Sequence[Comparison], run: Mapping[str, Any]) -> dict[str, Any]:
    """The document of ``--json``; times are milliseconds."""
    rows = [{**asdict(one), "name": one.name.replace("\n", " "), "ratio": one.ratio} for one in comparisons]
    return {"machine": machine(), "run": dict(run), "comparisons": rows}


def table(comparisons: Sequence[Comparison]) -> Table:
    """Ratios first; medians, and the extremes under them."""
    from rich.table import Table

    here = machine()
    caption = "{cpu} ({instructions}), {cores} cores, {threads} threads, torch {torch}".format(**here)
    made = Table("forward and backward", caption=caption, caption_justify="left")
    for heading in ("times\nas fast", "literal loop, autograd\nms, least to most", "ours\nms, least to most"):
        made.add_column(heading, justify="right")
    for one in comparisons:
        made.add_row(one.name, f"{one.ratio:.1f}", _cell(one.naive), _cell(one.ours))
    return made


def _cell(timing: Timing) -> str:
    return f"{timing.median:.1f}\n{timing.least:.1f} to {timing.most:.1f}"
