"""CCNet beside what a user would run instead, on this CPU: the paper's loop, PyTorch, and MST++'s design (MHA).

All ways of a row take turns in one run, in another order each round, so that whatever else the machine does meets them
alike. What is not ours runs as its users would have it: ONNX Runtime and OpenVINO with their own defaults but for the
number of threads, OpenVINO with the row's size known. A row's floor is an estimate: what its convolutions and products
take at the rate of a large matrix product, or its inputs, weights and outputs at the rate of a copy from memory.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ccnet.contract import CONTEXT, MANIFEST_KEY, RGB, Artifact, CCNetError, Manifest, sha256
from ccnet.export.artifacts import export
from ccnet.export.graph import fuse as native
from ccnet.export.graph import nescm_loop as literal
from ccnet.export.graph import nescm_unrolled as translate
from ccnet.export.graph import trace as graph
from ccnet.model import CCNet
from ccnet.model.ccnet import Context
from ccnet.ops import kernels
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators
from ccnet.runtime.io.frames import read_frame
from ccnet.runtime.reconstructor import Reconstructor

from .training import Timing, with_loop

Array = npt.NDArray[np.float32]
Work = Callable[[], Array]
Size = tuple[int, int]

OURS = "ONNX Runtime, our operators"
UNROLLED = "ONNX Runtime, our unrolled graph"
TORCH = "PyTorch, our operators"
COMPILED = "torch.compile, our operators"
LOOP = "ONNX Runtime, the paper's loop"
TORCH_LOOP = "PyTorch, the paper's loop"
MHA = "MHA in ONNX Runtime"
MHA_OURS = "MHA in ONNX Runtime, our operators"
TORCH_MHA = "MHA in PyTorch"
OPENVINO = "OpenVINO, our unrolled graph"
OPENVINO_MHA = "MHA in OpenVINO"
WAYS = (OURS, UNROLLED, TORCH, COMPILED, LOOP, TORCH_LOOP, MHA, TORCH_MHA, OPENVINO, OPENVINO_MHA, MHA_OURS)
"""The columns. MHA is the ablation of Table II with MST++'s attention, which has no NeSCM and no PAF; of our operators
it can use all but NeSCM's and PAF's. torch.compile is measured where it finds a C++
compiler, OpenVINO where it is installed."""

PARTS = ("NeSCM", "CSRM block", "encode", "decode", "full")
_COMPILED = ("CSRM block", "decode")  # minutes to compile, so not more of them
_BLOCK = "units.0.enc1"
_PAUSE = 0.05  # s, in which the threads of the way before come to rest

FRAME = "frame"
"""A PNG read, encoded, decoded in windows: what ``Reconstructor`` does. Only graphs can."""

_HD: Size = (1080, 1920)
_FRAME: Size = (482, 512)  # NTIRE's

SIZES: tuple[tuple[str, Size], ...] = (
    *((part, (side, side)) for side in (128, 256) for part in PARTS),
    ("decode", (480, 512)),
    (FRAME, _FRAME),
    (FRAME, _HD),
)
QUICK: tuple[tuple[str, Size], ...] = (*((part, (256, 256)) for part in PARTS[:4]), (FRAME, (240, 256)))
GROWN: tuple[Size, ...] = ((248, 248), (504, 504), (1000, 1000), (1536, 2048), (3000, 4000))
"""What ``ccnet bench`` measures: parts by size, and frames of 0.06 to 12 Mpx, whose cost should be a straight line."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work in all ways; a way that has no such part is left out.

    size: height and width, px. floor: milliseconds, None where it is not counted. difference: largest, between ours and
    the paper's loop, in what comes out.
    """

    name: str
    size: Size
    ways: Mapping[str, Timing]
    floor: float | None
    difference: float | None

    def ratio(self, way: str) -> float:
        """How many times as long that way takes as ours, by the medians."""
        return self.ways[way].median / self.ways[OURS].median


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What this machine can do: bytes a second copied (read and written), operations a second in a product."""

    copy: float
    product: float


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, its graphs by part, the folder that a Reconstructor opens, and the seconds that its export took."""

    model: CCNet
    graphs: Mapping[str, bytes]
    unrolled: Mapping[str, bytes]
    folder: Path
    seconds: float


def rates(repeats: int = 5) -> Rates:
    """The best of some repetitions."""
    source, target = torch.rand(1 << 25), torch.empty(1 << 25)  # 128 MB, beyond any cache
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    copies = min(_seconds(lambda: target.copy_(source))[0] for _ in range(repeats))
    products = min(_seconds(lambda: a @ b)[0] for _ in range(repeats))
    return Rates(copy=2 * source.nbytes / copies, product=2 * 1024**3 / products)


def networks(model: CCNet, folder: Path) -> Iterator[tuple[str, Network]]:
    """The three that are compared, as (name, network), each when it is exported: ours, the paper's loop, MHA."""
    if not operators():
        raise CCNetError("the package's kernels are not compiled here: install a C compiler, then the package again")
    torch.manual_seed(0)
    yield "ours", _exported(model, folder / "ours")
    yield "loop", _with_loop(model, folder / "loop")
    mha = CCNet(dataclasses.replace(model.config, inter_spectral="mha")).eval()
    plain = folder / "reference_ops"  # without our operators
    made = _exported(mha, folder / "mha")
    _folder_of(made.unrolled, mha, plain)
    yield "MHA", dataclasses.replace(made, folder=plain)


def _exported(model: CCNet, folder: Path) -> Network:
    """As ``ccnet export`` does it; single parts are traced apart and not counted."""
    seconds, manifest = _seconds(lambda: export(model, folder))
    whole = {kind: manifest.find(kind).read(folder) for kind in ("encode", "decode", "full")}
    unrolled = {**whole, **_parts(model)}
    graphs = {part: _native(data, _module(model, part)) for part, data in unrolled.items()}
    return Network(model=model, graphs=graphs, unrolled=unrolled, folder=folder, seconds=seconds)


def _with_loop(model: CCNet, folder: Path) -> Network:
    started = time.perf_counter()
    traced = graph.trace(model, literal.nescm)
    cut = {
        "encode": graph.encode(traced), "decode": graph.decode(traced, model.context_shapes), "full": graph.full(traced)
    }  # fmt: skip
    whole = {kind: graph.stamp(one, {}) for kind, one in cut.items()}
    seconds = time.perf_counter() - started
    graphs = {**whole, **_parts(model, literal.nescm)}
    _folder_of(whole, model, folder)
    return Network(model=with_loop(model), graphs=graphs, unrolled=graphs, folder=folder, seconds=seconds)


def _folder_of(whole: Mapping[str, bytes], model: CCNet, folder: Path) -> None:
    """What a Reconstructor opens, of these graphs."""
    folder.mkdir(parents=True)
    bare = Manifest(
        config=model.config.to_dict(),
        weights_sha256="0" * 64,
        context_size=model.context_size,
        input="float32",
        tools={},
        size_multiple=model.config.size_multiple,
    )
    artifacts = []
    for kind in ("encode", "decode"):
        path = folder / f"{kind}.fp32.onnx"
        path.write_bytes(
            graph.stamp(ir.from_proto(onnx.load_model_from_string(whole[kind])), {MANIFEST_KEY: bare.to_json()})
        )
        artifacts.append(Artifact(file=path.name, kind=kind, format="onnx", precision="fp32", sha256=sha256(path)))
    dataclasses.replace(bare, artifacts=tuple(artifacts)).write(folder)


def _native(data: bytes, module: nn.Module) -> bytes:
    made = native.fuse_operators(ir.from_proto(onnx.load_model_from_string(data)), module)
    return bytes(ir.to_proto(made).SerializeToString())


class _Block(nn.Module):
    """A CSRM block under a given attention, as a function of tensors."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BCHW: Tensor, attention: Tensor) -> Tensor:
        result: Tensor = self.block(x_BCHW, Context([attention]))
        return result


def _module(model: CCNet, part: str) -> nn.Module:
    """What a part's graph is traced from."""
    if part == "NeSCM":
        return model.get_submodule(f"{_BLOCK}.inter.nescm")
    return _Block(model.get_submodule(_BLOCK)).eval() if part == "CSRM block" else model


def _parts(model: CCNet, nescm: graph.Translation = translate.nescm) -> dict[str, bytes]:
    multiple = model.config.size_multiple
    parts = PARTS[1:2] if model.config.inter_spectral == "mha" else PARTS[:2]
    graphs = {
        part: graph.to_onnx(
            _module(model, part), _inputs(model, part, (4 * multiple, 6 * multiple)), ["y"], multiple, nescm
        )
        for part in parts
    }
    return {part: bytes(ir.to_proto(one).SerializeToString()) for part, one in graphs.items()}


def _inputs(model: CCNet, part: str, size: Size) -> dict[str, Tensor]:
    """Seeded noise of a part's shapes, with the context that belongs to it."""
    generator = torch.Generator().manual_seed(0)
    if part in PARTS[:2]:
        x = {"x": torch.rand(1, model.config.width, *size, generator=generator)}
        attention = torch.rand(1, *model.context_shapes[0], generator=generator).softmax(-1)
        return x if part == "NeSCM" else {**x, CONTEXT: attention}
    rgb = torch.rand(1, 3, *size, generator=generator)
    with torch.inference_mode():
        return {RGB: rgb, CONTEXT: model.encode(rgb)} if part == "decode" else {RGB: rgb}


def measure(made: Mapping[str, Network], part: str, size: Size, repeats: int, threads: int, limits: Rates) -> Row:
    """A row: a part of PARTS, or a frame, of one size in px."""
    if part == FRAME:
        return _measure_frame(made, size, repeats, threads)
    with ExitStack() as stack:
        works = {way: work for way, work in _works(made, part, size, threads, stack) if work}
        timings, results = take_turns(works, repeats)
    floor = _floor(made["ours"].model, part, size, limits)
    difference = float(np.abs(results[OURS] - results[TORCH_LOOP]).max())
    return Row(name=part, size=size, ways=timings, floor=floor, difference=difference)


def _works(
    made: Mapping[str, Network], part: str, size: Size, threads: int, stack: ExitStack
) -> Iterator[tuple[str, Work | None]]:
    """Every way that has the part, in the order of WAYS."""

    def run(network: str, data: Mapping[str, bytes]) -> Work | None:
        if part not in data:
            return None
        backend = stack.enter_context(OnnxRuntimeBackend(data[part], threads=threads))
        feeds = {key: one.numpy() for key, one in _inputs(made[network].model, part, size).items()}
        return lambda: next(iter(backend.run(feeds).values()))

    def plain(network: str, data: Mapping[str, bytes]) -> Work | None:
        return None if part not in data else _plain_work(data[part], made[network].model, part, size, threads)

    ours, loop, mha = (made[name] for name in ("ours", "loop", "MHA"))
    yield OURS, run("ours", ours.graphs)
    yield UNROLLED, run("ours", ours.unrolled)
    yield TORCH, _torch_work(ours.model, part, size)
    if part in _COMPILED and shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")):
        yield COMPILED, _torch_work(ours.model, part, size, compiled=True)
    yield LOOP, plain("loop", loop.graphs)
    yield TORCH_LOOP, kernels.reference_ops()(_torch_work(loop.model, part, size))
    if part in mha.unrolled:
        yield MHA, plain("MHA", mha.unrolled)
        yield TORCH_MHA, _torch_work(mha.model, part, size)
        yield MHA_OURS, run("MHA", mha.graphs)
    if openvino := _openvino():
        yield OPENVINO, _openvino_work(openvino, ours, part, size, threads)
        if part in mha.unrolled:
            yield OPENVINO_MHA, _openvino_work(openvino, mha, part, size, threads)


def _torch_work(model: CCNet, part: str, size: Size, *, compiled: bool = False) -> Work:
    inputs = _inputs(model, part, size)
    run: Callable[..., Tensor] = (
        getattr(model, part) if part in ("encode", "decode") else model if part == "full" else _module(model, part)
    )
    if compiled:
        run = torch.compile(run, dynamic=False)

    @torch.inference_mode()
    def work() -> Array:
        result: Array = run(*inputs.values()).numpy()
        return result

    return work


def _plain_work(data: bytes, model: CCNet, part: str, size: Size, threads: int) -> Work:
    """ONNX Runtime with its own defaults."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feeds = {key: one.numpy() for key, one in _inputs(model, part, size).items()}
    return lambda: session.run(None, feeds)[0]


@functools.cache
def _openvino() -> Any:
    """Its Core, where it is installed.

    One alone: each puts back the stack for signals that it found when it ends (2026.4). Of several, that is the stack
    of one that has ended, and Ctrl-C ends the process.
    """
    return importlib.import_module("openvino").Core() if importlib.util.find_spec("openvino") else None


def _openvino_work(core: Any, network: Network, part: str, size: Size, threads: int) -> Work:
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    read = core.read_model(network.unrolled[part])
    feeds = {key: one.numpy() for key, one in _inputs(network.model, part, size).items()}
    read.reshape({key: list(one.shape) for key, one in feeds.items()})
    compiled = core.compile_model(read, "CPU")
    return lambda: np.asarray(next(iter(compiled(feeds).values())))


def _measure_frame(made: Mapping[str, Network], size: Size, repeats: int, threads: int) -> Row:
    """The paper's loop is left out beyond half a megapixel: ONNX Runtime would take minutes a frame."""
    names = {OURS: "ours", LOOP: "loop", MHA: "MHA"}
    if size[0] * size[1] > 1 << 19:
        del names[LOOP]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "frame.png"
        path.write_bytes(_picture(size))
        works: dict[str, Work] = {}
        for way, name in names.items():
            run = stack.enter_context(Reconstructor.open(made[name].folder, threads=threads))
            works[way] = functools.partial(lambda run: run(read_frame(path)), run)
        timings, results = take_turns(works, repeats)
    difference = float(np.abs(results[OURS] - results[LOOP]).max()) if LOOP in results else None
    return Row(name=FRAME, size=size, ways=timings, floor=None, difference=difference)


def _picture(size: Size) -> bytes:
    """A PNG of patches in random colours."""
    from PIL import Image

    colours = np.random.default_rng(0).integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours.repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]]).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a frame of so many megapixels costs: seconds, and peak resident memory, MB, of a process of its own."""

    megapixels: float
    seconds: float
    peak_mb: float

    @property
    def per_megapixel(self) -> float:
        return self.seconds / self.megapixels


_GROWTH = """
import json, statistics, sys, time
import numpy as np
from ccnet.runtime import Reconstructor
folder, height, width, threads = sys.argv[1], *map(int, sys.argv[2:])
colours = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
frame = colours.repeat(8, axis=0).repeat(8, axis=1)
with Reconstructor.open(folder, threads=threads) as run:
    run(frame[:512, :512])  # the first use of everything
    seconds = []
    for _ in range(5 if frame.size < 1 << 20 else 1):  # what takes a second meets whatever else the machine does
        started = time.perf_counter()
        for top, strip in run.strips(frame):
            pass
        seconds.append(time.perf_counter() - started)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([statistics.median(seconds), 1024 * int(status["VmHWM"].split()[0]) / 1e6]))
"""


def growth(network: Network, size: Size, threads: int) -> Growth:
    """A synthetic frame, its cube streamed out strip by strip and dropped."""
    given = [sys.executable, "-c", _GROWTH, str(network.folder), *map(str, (*size, threads))]
    done = subprocess.run(given, check=True, capture_output=True, text=True)  # noqa: S603
    seconds, peak = json.loads(done.stdout)
    return Growth(megapixels=size[0] * size[1] / 1e6, seconds=seconds, peak_mb=peak)


def load_seconds(network: Network, threads: int) -> float:
    """Of a Reconstructor on the network's folder, once files are in memory."""
    return min(_seconds(lambda: Reconstructor.open(network.folder, threads=threads).close())[0] for _ in range(3))


def take_turns(works: Mapping[str, Work], repeats: int) -> tuple[dict[str, Timing], dict[str, Array]]:
    """Times by way, after one round that pays for the first use of everything and gives the results."""
    results = {way: work() for way, work in works.items()}
    seconds: dict[str, list[float]] = {way: [] for way in works}
    order = np.random.default_rng(0)
    for _ in range(repeats):
        for way in order.permutation([*works]).tolist():
            time.sleep(_PAUSE)
            seconds[way].append(_seconds(works[way])[0])
    return {way: Timing.of(times) for way, times in seconds.items()}, results


def _floor(model: CCNet, part: str, size: Size, limits: Rates) -> float:
    """Milliseconds. Operations are those of convolutions and products as torch counts them."""
    inputs, work = _inputs(model, part, size), _torch_work(model, part, size)
    with kernels.reference_ops(), FlopCounterMode(display=False) as counter:  # inside a kernel nothing is counted
        result = work()
    weights = sum(one.nbytes for one in _module(model, part).parameters())
    moved = sum(one.nbytes for one in inputs.values()) + result.nbytes + weights
    return 1e3 * max(float(counter.get_total_flops()) / limits.product, moved / limits.copy)


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result
