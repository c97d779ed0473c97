"""Weights → an artifact folder: ONNX graphs, compared with PyTorch, and the manifest that vouches for them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from ccnet.contract import (
    CONTEXT,
    HALO,
    MANIFEST_KEY,
    NATIVE_FORMAT,
    PLUGIN_FORMAT,
    PRECISION_KEY,
    RGB,
    SIZE_MULTIPLE,
    Artifact,
    CCNetError,
    Manifest,
    available_cores,
    make_folder,
    sha256,
    write_atomic,
)
from ccnet.model import CCNet
from ccnet.model.checkpoint import weights_hash
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import reference_ops
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators, sums_in_fp16
from ccnet.runtime.quality.tolerances import TOLERANCES, compare

from .fingerprint import tools
from .graph import cut, nescm_multiply_add
from .graph.fuse import fuse_operators, fuse_pooled_nescm
from .graph.memory import bytes_per_pixel
from .graph.mixed_precision import precisions, to_fp16
from .graph.serialize import stamp, structure
from .graph.trace import gc_paused, trace

Input = Literal["float32", "uint8"]
Progress = Callable[[str], None]
Array = npt.NDArray[np.float32]


_INFIXES = {NATIVE_FORMAT: ".native", PLUGIN_FORMAT: ".plugin"}


class GraphKey(NamedTuple):
    """The entries of a manifest that name a graph."""

    kind: str
    precision: str
    format: str = "onnx"

    @property
    def file(self) -> str:
        """Name of the graph's file."""
        return f"{self.kind}.{self.precision}{_INFIXES.get(self.format, '')}.onnx"


@gc_paused()
def export(
    model: CCNet,
    folder: Path,
    *,
    input: Input = "float32",
    camera: dict[str, Any] | None = None,
    fingerprint: str = "",
    error: bytes | None = None,
    plugin: bool = False,
    progress: Progress = lambda stage: None,
) -> Manifest:
    """Trace, cut, check and compare through the shipped runtime, and only then write: graphs first, the manifest last.

    Args:
        model: The network.
        folder: Where the artifacts go; created if it does not exist.
        input: Type of the graphs' frames: float32 (1, 3, H, W) in [0, 1], or uint8 (1, H, W, 3).
        camera: The camera that the weights are for, see ``checkpoint_camera``; the runtime judges its cubes by it.
        fingerprint: What this export depends on, see ``export_fingerprint``; a later export compares its own with it.
        error: Content of the file of the weights' predicted error, which goes into the folder as it is; None is none.
        plugin: Write ``decode`` in FP16 with nodes of TensorRT's plugin, too.
        progress: Called with the name of each stage.

    Returns:
        The folder's manifest.

    Raises:
        CCNetError: A graph does not compute what PyTorch does, the network does not fit tiles with the halo, or the
            folder cannot be written.
    """
    _check_halo(model.config)
    make_folder(folder)
    graphs = _graphs(model, progress, plugin)
    manifest = Manifest(
        config=model.config.to_dict(),
        weights_sha256=weights_hash(model),
        context_size=model.context_size,
        input=input,
        tools=tools(),
        fingerprint=fingerprint,
        size_multiple=model.config.size_multiple,
        camera=camera,
    )
    files = {key: _serialize(graph, key, manifest) for key, graph in graphs.items()}
    progress("compare")
    _compare(model, files, input)
    progress("write")
    return _write(folder, manifest, files, error)


def _check_halo(config: CCNetConfig) -> None:
    """Refuse patches that do not fit the halo, and 3×3 gates, which carry pixels on from band to band beyond it."""
    unfit = [f"continuity {config.continuity!r}"] if config.continuity in ("convlstm", "convgru") else []
    unfit += [f"patch {config.patch}"] if config.size_multiple != SIZE_MULTIPLE else []
    if unfit:
        raise CCNetError(
            f"config {' and '.join(unfit)} does not fit tiles with a halo of {HALO} px: run this ablation in PyTorch"
        )


def _graphs(model: CCNet, progress: Progress, plugin: bool) -> dict[GraphKey, ir.Model]:
    """Return all graphs of the network; those with fused operators only where the operators are compiled."""
    progress("trace")
    traced = trace(model)
    progress("cut")
    cuts = {"encode": cut.encode(traced), "decode": cut.decode(traced, model.context_shapes), "full": cut.full(traced)}
    graphs = {GraphKey(kind, "fp32"): graph for kind, graph in cuts.items()}
    # Engines alone run these
    traced = trace(model, nescm_multiply_add.nescm)
    graphs[GraphKey("decode", "fp16")] = cut.decode(traced, model.context_shapes)
    graphs[GraphKey("full", "fp16")] = cut.full(traced)
    if plugin:
        if not operators():
            raise CCNetError(
                "--plugin needs the compiled kernels, which know what it fuses: install a C compiler first"
            )
        graphs[GraphKey("decode", "fp16", PLUGIN_FORMAT)] = fuse_pooled_nescm(cuts["decode"], model)
    if operators():  # a graph that cannot be compared here is not written
        for kind, graph in cuts.items():
            graphs[GraphKey(kind, "fp32", NATIVE_FORMAT)] = fuse_operators(graph, model)
    return graphs


def _serialize(graph: ir.Model, key: GraphKey, manifest: Manifest) -> bytes:
    if manifest.input == "uint8":
        graph = cut.with_uint8_frames(graph)
    if key.precision == "fp16":
        graph = to_fp16(graph)
    return stamp(graph, {MANIFEST_KEY: manifest.to_json(), PRECISION_KEY: json.dumps(precisions(graph))})


def _compare(model: CCNet, files: Mapping[GraphKey, bytes], input: Input) -> None:
    """Compare every graph, through the runtime's own backend, with PyTorch on one frame of an awkward shape."""
    multiple = model.config.size_multiple
    frame = _patchwork(3 * multiple, 5 * multiple)
    planes = np.ascontiguousarray(frame.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    rgb = frame if input == "uint8" else planes
    with reference_ops(), torch.inference_mode():  # some of the graphs have the compiled kernels inside
        cube, context = (tensor.numpy() for tensor in model.eval().run(torch.from_numpy(planes), None))

    def judge(key: GraphKey) -> None:
        feeds = {RGB: rgb, CONTEXT: context} if key.kind == "decode" else {RGB: rgb}
        expected = context if key.kind == "encode" else cube
        with OnnxRuntimeBackend(files[key]) as backend:
            (actual,) = backend.run(feeds).values()
        if key.precision == "fp16" and sums_in_fp16():
            return  # it loads and runs; no limit is set for this CPU, and engines are judged by ccnet check
        broken = TOLERANCES[key.precision].broken_by(compare(_as_cube(expected), _as_cube(actual)))
        if broken:
            raise CCNetError(
                f"the {key.kind} {key.format} graph in {key.precision} is not what PyTorch computes"
                f" ({', '.join(broken)})"
            )

    # ONNX Runtime takes most of the time to optimise a graph, on one core
    with ThreadPoolExecutor(available_cores()) as pool:
        # ONNX Runtime has no plugin: the tests compare its graph, in FP32, with the operators
        [*pool.map(judge, (key for key in files if key.format != PLUGIN_FORMAT))]


def _patchwork(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a uint8 frame (1, height, width, 3) of patches of random colours."""
    colours = np.random.default_rng(0).integers(0, 256, (1, height // 8, width // 8, 3), np.uint8)
    return colours.repeat(8, axis=1).repeat(8, axis=2)


def _as_cube(array: Array) -> Array:
    """Return (1, C, H, W) as (C, H, W); a context (1, N) is a cube of a single pixel."""
    return array.reshape(*array.shape[1:], *(1,) * (4 - array.ndim))


def _write(folder: Path, manifest: Manifest, files: Mapping[GraphKey, bytes], error: bytes | None) -> Manifest:
    """Write the graphs and the predicted error, and then the manifest, which it returns."""
    artifacts, config = [], CCNetConfig.from_dict(manifest.config)
    for key, data in files.items():
        path = folder / key.file
        memory = bytes_per_pixel(key.kind, config) if key.format == NATIVE_FORMAT else None
        write_atomic(path, data)
        artifacts.append(
            Artifact(
                file=path.name,
                kind=key.kind,
                format=key.format,
                precision=key.precision,
                sha256=sha256(path),
                details={"structure": structure(data)} | ({"bytes_per_pixel": memory} if memory else {}),
            )
        )
    artifacts += _stripped_engines(folder, artifacts)
    if error is not None:
        artifacts.append(_write_error(folder, error))
    manifest = dataclasses.replace(manifest, artifacts=tuple(artifacts))
    manifest.write(folder)
    return manifest


def _write_error(folder: Path, error: bytes) -> Artifact:
    path = folder / "error.npz"
    write_atomic(path, error)
    return Artifact(file=path.name, kind="error", format="npz", precision="fp32", sha256=sha256(path))


def _stripped_engines(folder: Path, graphs: list[Artifact]) -> list[Artifact]:
    """Return the folder's engines without weights that take these graphs' weights: they need no new build."""
    try:
        old = Manifest.read(folder).artifacts
    except CCNetError:
        return []  # no folder before this export, or none worth keeping
    fitting = {graph.details["structure"] for graph in graphs}
    return [entry for entry in old if entry.details.get("stripped") and entry.details.get("structure") in fitting]
