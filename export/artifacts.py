"""Weights → an artifact folder: ONNX graphs, compared with PyTorch, and the manifest that vouches for them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from ccnet.contract import (
    CONTEXT,
    HALO,
    MANIFEST_KEY,
    NATIVE_FORMAT,
    PRECISION_KEY,
    RGB,
    SIZE_MULTIPLE,
    Artifact,
    CCNetError,
    Manifest,
    make_folder,
    sha256,
    write_atomic,
)
from ccnet.data.camera import Camera
from ccnet.export.graph.mixed_precision import precisions, to_fp16
from ccnet.model import CCNet
from ccnet.model.checkpoint import camera_entry, weights_hash
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import reference_ops
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators
from ccnet.runtime.quality.tolerances import TOLERANCES, compare

from .fingerprint import tools
from .graph import fuse as native
from .graph import trace as graph

Input = Literal["float32", "uint8"]
Tell = Callable[[str], None]


@graph.uncollected()
def export(
    model: CCNet,
    folder: Path,
    *,
    input: Input = "float32",
    camera: Camera | None = None,
    inputs: str = "",
    tell: Tell = lambda stage: None,
) -> Manifest:
    """Trace, cut, check, compare through the shipped runtime, and only then write: graphs first, the manifest last.

    camera: that the weights are for, see ``checkpoint_camera``; the runtime judges its cubes by it.
    inputs: hash of what this export depends on, see ``export_inputs``, for the next one to know that it is not needed.
    tell: called with the name of each stage. CCNetError where a graph does not compute what PyTorch does, where the
    network does not fit tiles with the halo, or where the folder cannot be written.
    """
    _check_halo(model.config)
    make_folder(folder)
    tell("trace")
    traced = graph.trace(model)
    tell("cut")
    decode = graph.decode(traced, model.context_shapes)
    encode = graph.encode(traced)
    models = {
        ("encode", "fp32", "onnx"): encode,
        ("decode", "fp32", "onnx"): decode,
        ("decode", "fp16", "onnx"): decode,
        ("full", "fp32", "onnx"): graph.full(traced),
    }
    if operators():  # what cannot be compared here is not written
        models |= {
            ("encode", "fp32", NATIVE_FORMAT): native.fuse_operators(encode, model),
            ("decode", "fp32", NATIVE_FORMAT): native.fuse_operators(decode, model),
        }
    manifest = Manifest(
        config=model.config.to_dict(),
        weights_sha256=weights_hash(model),
        context_size=model.context_size,
        input=input,
        tools=tools(),
        fingerprint=inputs,
        size_multiple=model.config.size_multiple,
        camera=camera_entry(camera) if camera else None,
    )
    files = {key: _finish(one, key[1], manifest) for key, one in models.items()}
    tell("compare")
    _compare(model, files, input)
    tell("write")
    artifacts = []
    for (kind, precision, format), data in files.items():
        path = folder / (f"{kind}.{precision}.native.onnx" if format == NATIVE_FORMAT else f"{kind}.{precision}.onnx")
        write_atomic(path, data)
        artifacts.append(
            Artifact(
                file=path.name,
                kind=kind,
                format=format,
                precision=precision,
                sha256=sha256(path),
                details={"structure": graph.structure(data)},
            )
        )
    artifacts += _without_weights(folder, artifacts)
    manifest = dataclasses.replace(manifest, artifacts=tuple(artifacts))
    manifest.write(folder)
    return manifest


def _without_weights(folder: Path, graphs: list[Artifact]) -> list[Artifact]:
    """The folder's stripped engines that these graphs' weights fit: they need no new build."""
    try:
        old = Manifest.read(folder).artifacts
    except CCNetError:
        return []  # no folder before this export, or none worth keeping
    fitting = {one.details["structure"] for one in graphs}
    return [one for one in old if one.details.get("stripped") and one.details.get("structure") in fitting]


def _check_halo(config: CCNetConfig) -> None:
    """A halo is whole patches; and 3×3 gates carry pixels on from band to band, for which it was never measured."""
    unfit = [f"continuity {config.continuity!r}"] if config.continuity in ("convlstm", "convgru") else []
    unfit += [f"patch {config.patch}"] if config.size_multiple != SIZE_MULTIPLE else []
    if unfit:
        raise CCNetError(
            f"config {' and '.join(unfit)} does not fit tiles with a halo of {HALO} px: run this ablation in PyTorch"
        )


def _finish(model: ir.Model, precision: str, manifest: Manifest) -> bytes:
    if manifest.input == "uint8":
        model = graph.with_uint8_frames(model)
    if precision == "fp16":
        model = to_fp16(model)
    return graph.stamp(model, {MANIFEST_KEY: manifest.to_json(), PRECISION_KEY: json.dumps(precisions(model))})


def _compare(model: CCNet, files: dict[tuple[str, str, str], bytes], input: Input) -> None:
    """Every graph, through the runtime's own backend, against PyTorch on one frame of an awkward shape."""
    multiple = model.config.size_multiple
    frame = _patchwork(3 * multiple, 5 * multiple)
    planes = np.ascontiguousarray(frame.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    rgb = frame if input == "uint8" else planes
    with reference_ops(), torch.inference_mode():  # kernels of ours are in some of the graphs
        cube, context = (tensor.numpy() for tensor in model.eval().run(torch.from_numpy(planes), None))

    def judge(key: tuple[str, str, str]) -> None:
        kind, precision, format = key
        feeds = {RGB: rgb, CONTEXT: context} if kind == "decode" else {RGB: rgb}
        expected = context if kind == "encode" else cube
        with OnnxRuntimeBackend(files[key]) as backend:
            (found,) = backend.run(feeds).values()
        broken = TOLERANCES[precision].broken_by(compare(_as_cube(expected), _as_cube(found)))
        if broken:
            raise CCNetError(
                f"the {kind} {format} graph in {precision} is not what PyTorch computes ({', '.join(broken)})"
            )

    with ThreadPoolExecutor() as pool:  # ONNX Runtime takes most of the time to optimise a graph, on one core
        [*pool.map(judge, files)]


def _patchwork(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A uint8 frame (1, height, width, 3) of patches of random colours."""
    colours = np.random.default_rng(0).integers(0, 256, (1, height // 8, width // 8, 3), np.uint8)
    return colours.repeat(8, axis=1).repeat(8, axis=2)


def _as_cube(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(1, C, H, W) → (C, H, W); a context (1, N) is a cube of one pixel."""
    return array.reshape(*array.shape[1:], *(1,) * (4 - array.ndim))
