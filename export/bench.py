"""CCNet beside what a user would run instead, on this CPU: the paper's loop, PyTorch, and MST++'s design (MHA).

All ways of a row take turns in one run, so that whatever else the machine does meets them alike. A row's floor is what
its arithmetic takes at the rate of a large matrix product, or its inputs, weights and outputs at the rate of a copy,
whichever takes longer: no program on this machine can be faster.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ccnet.bench import Timing
from ccnet.config import CCNetConfig
from ccnet.contract import CONTEXT, CUBE, RGB, padded
from ccnet.model import CCNet, Context
from ccnet.modules import NeSCM
from ccnet.runtime.onnxruntime_backend import OnnxRuntimeBackend
from ccnet.runtime.reconstructor import Reconstructor

from . import graph, literal
from .artifacts import export

Array = npt.NDArray[np.float32]
Work = Callable[[], Array]
Size = tuple[int, int]

OURS = "ONNX Runtime, ours"
NAIVE = "PyTorch, the paper's loop"
WAYS = (
    OURS, "PyTorch, ours", NAIVE, "ONNX Runtime, the paper's loop", "MHA in ONNX Runtime", "MHA in PyTorch"
)  # fmt: skip
"""The columns. MHA is the ablation of Table II with MST++'s attention, with 1.70 M parameters."""

PARTS = ("nescm", "block", "encode", "decode", "full")
_TITLES = {"nescm": "NeSCM", "block": "CSRM block"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work in all ways; a way that has no such part is left out.

    floor: milliseconds below which this machine cannot do it. difference: largest, between ours and the paper's loop.
    """

    name: str
    size: Size
    ways: Mapping[str, Timing]
    floor: float
    difference: float

    def ratio(self, way: str) -> float:
        """How many times as long that way takes as ours, by the medians."""
        return self.ways[way].median / self.ways[OURS].median


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What this machine can do: bytes a second copied (read and written), operations a second in a product."""

    copy: float
    product: float


def rates(repeats: int = 5) -> Rates:
    """The best of some repetitions."""
    source, target = torch.rand(1 << 25), torch.empty(1 << 25)  # 128 MB, beyond any cache
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    copies = min(_seconds(lambda: target.copy_(source))[0] for _ in range(repeats))
    products = min(_seconds(lambda: a @ b)[0] for _ in range(repeats))
    return Rates(copy=2 * source.nbytes / copies, product=2 * 1024**3 / products)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and its graphs, by part. seconds: what the export took, with its comparison where it has one."""

    model: CCNet
    graphs: Mapping[str, bytes]
    seconds: float

    def work(self, part: str, inputs: Mapping[str, Tensor]) -> Work:
        """In PyTorch."""
        block = self.model.units[0].enc1
        run: dict[str, Callable[..., Tensor]] = {
            "nescm": lambda: block.inter.nescm(*inputs.values()),
            "block": lambda: _Block(block)(*inputs.values()),
            "encode": lambda: self.model.encode(*inputs.values()),
            "decode": lambda: self.model.decode(*inputs.values()),
            "full": lambda: self.model(*inputs.values()),
        }

        @torch.inference_mode()
        def work() -> Array:
            result: Array = run[part]().numpy()
            return result

        return work

    def inputs(self, part: str, size: Size) -> dict[str, Tensor]:
        """Seeded noise of a part's shapes, with the context that belongs to it."""
        torch.manual_seed(0)
        if part == "nescm":
            return {"x": torch.rand(1, self.model.config.width, *size)}
        if part == "block":
            shape = self.model.context_shapes[0]
            return {"x": torch.rand(1, self.model.config.width, *size), CONTEXT: torch.rand(1, *shape).softmax(-1)}
        rgb = torch.rand(1, 3, *size)
        with torch.inference_mode():
            return {RGB: rgb, CONTEXT: self.model.encode(rgb)} if part == "decode" else {RGB: rgb}


class _Block(nn.Module):
    """A CSRM block under a given attention, as a function of tensors."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BCHW: Tensor, attention: Tensor) -> Tensor:
        result: Tensor = self.block(x_BCHW, Context([attention]))
        return result


def networks(model: CCNet) -> Iterator[tuple[str, Network]]:
    """The three that are compared, as (name, network), each when it is exported: ours, the paper's loop, MHA."""
    yield "ours", _exported(model)
    yield "loop", _with_loop(model)
    torch.manual_seed(0)
    yield "MHA", _exported(CCNet(CCNetConfig(inter_spectral="mha")).eval())


def _exported(model: CCNet) -> Network:
    """As ``ccnet export`` does it; the graphs of single parts are traced apart and not counted."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, manifest = _seconds(lambda: export(model, Path(folder)))
        graphs = {kind: manifest.find(kind).read(Path(folder)) for kind in ("encode", "decode", "full")}
    return Network(model=model, graphs=graphs | _parts(model, {}), seconds=seconds)


def _with_loop(model: CCNet) -> Network:
    naive = copy.deepcopy(model)
    started = time.perf_counter()
    traced = graph.trace(naive, literal.nescm)
    graphs = {
        "encode": graph.encode(traced), "decode": graph.decode(traced, model.context_shapes), "full": graph.full(traced)
    }  # fmt: skip
    files = {kind: graph.stamp(one, {}) for kind, one in graphs.items()} | _parts(naive, {"nescm": literal.nescm})
    seconds = time.perf_counter() - started
    for part in naive.modules():
        if isinstance(part, NeSCM):
            part.forward = part.literal  # type: ignore[method-assign]
    return Network(model=naive, graphs=files, seconds=seconds)


def _parts(model: CCNet, translation: Mapping[str, graph.Translation]) -> dict[str, bytes]:
    block, multiple = model.units[0].enc1, model.config.size_multiple
    x = torch.rand(1, model.config.width, 4 * multiple, 6 * multiple)
    modules: dict[str, tuple[nn.Module, dict[str, Tensor]]] = {
        "block": (_Block(block).eval(), {"x": x, CONTEXT: torch.rand(1, *model.context_shapes[0])})
    }
    if block.inter.nescm is not None:
        modules["nescm"] = block.inter.nescm, {"x": x}
    return {
        part: bytes(ir.to_proto(graph.to_onnx(module, given, ["y"], multiple, **translation)).SerializeToString())
        for part, (module, given) in modules.items()
    }


def measure(
    made: Mapping[str, Network], parts: Sequence[str], size: Size, repeats: int, threads: int, limits: Rates
) -> Iterator[Row]:
    """A row for each part, of frames or features of one size in px."""
    for part in parts:
        with ExitStack() as stack:
            works = dict(_works(made, part, size, threads, stack))
            naive = made["loop"]
            inputs = naive.inputs(part, size)
            floor = _floor(naive, part, inputs, limits)
            timings, results = take_turns(works, repeats)
        difference = float(np.abs(results[OURS] - results[NAIVE]).max())
        yield Row(name=_TITLES.get(part, part), size=size, ways=timings, floor=floor, difference=difference)


def _works(
    made: Mapping[str, Network], part: str, size: Size, threads: int, stack: ExitStack
) -> Iterator[tuple[str, Work]]:
    """Every way that has the part, in the order of WAYS."""
    names = {"ours": WAYS[:2], "loop": WAYS[3:1:-1], "MHA": WAYS[4:]}
    works = {}
    for name, (by_graph, by_torch) in names.items():
        network = made[name]
        if part not in network.graphs:
            continue
        inputs = network.inputs(part, size)
        backend = stack.enter_context(OnnxRuntimeBackend(network.graphs[part], threads=threads))
        feeds = {key: tensor.numpy() for key, tensor in inputs.items()}
        works[by_graph] = _graph_work(backend, feeds)
        works[by_torch] = network.work(part, inputs)
    return ((way, works[way]) for way in WAYS if way in works)


def _graph_work(backend: OnnxRuntimeBackend, feeds: Mapping[str, Array]) -> Work:
    return lambda: next(iter(backend.run(feeds).values()))


def take_turns(works: Mapping[str, Work], repeats: int) -> tuple[dict[str, Timing], dict[str, Array]]:
    """Times by way, after one round that pays for the first use of everything and gives the results."""
    results = {way: work() for way, work in works.items()}
    seconds: dict[str, list[float]] = {way: [] for way in works}
    for _ in range(repeats):
        for way, work in works.items():
            seconds[way].append(_seconds(work)[0])
    return {way: Timing.of(times) for way, times in seconds.items()}, results


def _floor(network: Network, part: str, inputs: Mapping[str, Tensor], limits: Rates) -> float:
    """Milliseconds. Operations are those of convolutions and matrix products, as torch counts them in the paper's form."""
    counter = FlopCounterMode(display=False)
    with counter:
        result = network.work(part, inputs)()
    weights = sum(one.nbytes for one in network.model.parameters()) if part in ("encode", "decode", "full") else 0
    moved = sum(one.nbytes for one in inputs.values()) + result.nbytes + weights
    return 1e3 * max(counter.get_total_flops() / limits.product, moved / limits.copy)


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result
