"""The networks that ``ccnet bench`` compares, and the graphs of their parts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from ccnet.contract import CONTEXT, MANIFEST_KEY, RGB, Artifact, CCNetError, Manifest, sha256
from ccnet.export.artifacts import export
from ccnet.export.graph import cut, nescm_loop, nescm_unrolled
from ccnet.export.graph.fuse import fuse_operators
from ccnet.export.graph.serialize import stamp
from ccnet.export.graph.trace import Translation, to_onnx, trace
from ccnet.model import CCNet
from ccnet.model.ccnet import Context
from ccnet.runtime.backends.onnxruntime import operators

from .timing import timed
from .training import with_reference_loop

Size = tuple[int, int]
"""Height and width, px."""

CCNET, LOOP, MHA = "CCNet", "loop", "MHA"
"""Names of the networks: CCNet as it is exported; with the paper's loop as its NeSCM; the ablation of Table II with
MST++'s attention, which has no NeSCM and no PAF."""

PARTS = ("NeSCM", "CSRM block", "encode", "decode", "full")
_BLOCK = "units.0.enc1"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and its exported graphs.

    Attributes:
        model: The network in PyTorch.
        graphs: Part → its ONNX graph, with fused operators where the network has any.
        unrolled: Part → its ONNX graph without fused operators.
        folder: Artifact folder that a Reconstructor opens.
        seconds: Duration of the export.
    """

    model: CCNet
    graphs: Mapping[str, bytes]
    unrolled: Mapping[str, bytes]
    folder: Path
    seconds: float


def export_networks(model: CCNet, folder: Path) -> Iterator[tuple[str, Network]]:
    """Yield the names and networks to compare, each as soon as it is exported.

    Args:
        model: The network as CCNet has it.
        folder: Where the artifact folders go.

    Yields:
        (CCNET, …), (LOOP, …), (MHA, …).

    Raises:
        CCNetError: The package's kernels are not compiled.
    """
    if not operators():
        raise CCNetError("the package's kernels are not compiled here: install a C compiler, then the package again")
    torch.manual_seed(0)
    yield CCNET, _export_ccnet(model, folder / "ccnet")
    yield LOOP, _export_loop(model, folder / "loop")
    mha = CCNet(dataclasses.replace(model.config, inter_spectral="mha")).eval()
    exported, unrolled = _export_ccnet(mha, folder / "mha"), folder / "mha-unrolled"
    _write_folder(exported.unrolled, mha, unrolled)
    yield MHA, dataclasses.replace(exported, folder=unrolled)


def export_ccnet(model: CCNet, folder: Path) -> Path:
    """Export a network as ``ccnet export`` does, below a folder; return its artifact folder."""
    export(model, folder / "ccnet")
    return folder / "ccnet"


def export_mha(model: CCNet, folder: Path) -> Path:
    """Write the MHA network of a configuration, with random weights, as its users would export it; return the file."""
    torch.manual_seed(0)
    mha = CCNet(dataclasses.replace(model.config, inter_spectral="mha")).eval()
    path = folder / "mha.onnx"
    path.write_bytes(stamp(cut.full(trace(mha)), {}))
    return path


def _export_ccnet(model: CCNet, folder: Path) -> Network:
    """Export as ``ccnet export`` does; single parts are traced besides, outside of the measured time."""
    seconds, manifest = timed(lambda: export(model, folder))
    whole = {kind: manifest.find(kind).read(folder) for kind in ("encode", "decode", "full")}
    unrolled = {**whole, **_trace_parts(model)}
    graphs = {part: _fuse(data, module_of(model, part)) for part, data in unrolled.items()}
    return Network(model=model, graphs=graphs, unrolled=unrolled, folder=folder, seconds=seconds)


def _export_loop(model: CCNet, folder: Path) -> Network:
    """Export the network with the paper's loop as its NeSCM."""
    started = time.perf_counter()
    traced = trace(model, nescm_loop.nescm)
    graphs = {
        "encode": cut.encode(traced),
        "decode": cut.decode(traced, model.context_shapes),
        "full": cut.full(traced),
    }
    whole = {kind: stamp(graph, {}) for kind, graph in graphs.items()}
    seconds = time.perf_counter() - started
    all_graphs = {**whole, **_trace_parts(model, nescm_loop.nescm)}
    _write_folder(whole, model, folder)
    return Network(
        model=with_reference_loop(model), graphs=all_graphs, unrolled=all_graphs, folder=folder, seconds=seconds
    )


def _write_folder(whole: Mapping[str, bytes], model: CCNet, folder: Path) -> None:
    """Write an artifact folder of these graphs."""
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
    for kind in ("encode", "decode", "full"):
        path = folder / f"{kind}.fp32.onnx"
        path.write_bytes(stamp(_parse(whole[kind]), {MANIFEST_KEY: bare.to_json()}))
        artifacts.append(Artifact(file=path.name, kind=kind, format="onnx", precision="fp32", sha256=sha256(path)))
    dataclasses.replace(bare, artifacts=tuple(artifacts)).write(folder)


def _parse(data: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_model_from_string(data))


def _fuse(data: bytes, module: nn.Module) -> bytes:
    return bytes(ir.to_proto(fuse_operators(_parse(data), module)).SerializeToString())


class _Block(nn.Module):
    """A CSRM block as a function of its features and its attention."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x_BCHW: Tensor, attention: Tensor) -> Tensor:
        return self.block(x_BCHW, Context([attention]))


def module_of(model: CCNet, part: str) -> nn.Module:
    """Return the module that a part's graph is traced from."""
    if part == "NeSCM":
        return model.get_submodule(f"{_BLOCK}.inter.nescm")
    return _Block(model.get_submodule(_BLOCK)).eval() if part == "CSRM block" else model


def function_of(model: CCNet, part: str) -> Callable[..., Tensor]:
    """Return a part as a function of the tensors of ``inputs_of``."""
    if part in ("encode", "decode"):
        return getattr(model, part)
    return module_of(model, part)


def inputs_of(model: CCNet, part: str, size: Size) -> dict[str, Tensor]:
    """Return seeded noise of a part's shapes at a size in px, with the context that belongs to it."""
    generator = torch.Generator().manual_seed(0)
    if part in PARTS[:2]:
        x = {"x": torch.rand(1, model.config.width, *size, generator=generator)}
        attention = torch.rand(1, *model.context_shapes[0], generator=generator).softmax(-1)
        return x if part == "NeSCM" else {**x, CONTEXT: attention}
    rgb = torch.rand(1, 3, *size, generator=generator)
    with torch.inference_mode():
        return {RGB: rgb, CONTEXT: model.encode(rgb)} if part == "decode" else {RGB: rgb}


def _trace_parts(model: CCNet, nescm: Translation = nescm_unrolled.nescm) -> dict[str, bytes]:
    multiple = model.config.size_multiple
    parts = PARTS[1:2] if model.config.inter_spectral == "mha" else PARTS[:2]
    graphs = {}
    for part in parts:
        inputs = inputs_of(model, part, (4 * multiple, 6 * multiple))
        graphs[part] = to_onnx(module_of(model, part), inputs, ["y"], multiple, nescm)
    return {part: bytes(ir.to_proto(graph).SerializeToString()) for part, graph in graphs.items()}
