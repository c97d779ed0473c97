"""Small graphs and engines for the tests of damaged artifacts, and functions that damage them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ccnet.contract import MANIFEST_KEY, Artifact, Manifest, sha256
from ccnet.export.engine.builder import BuildOptions
from ccnet.export.engine.plan import EngineSet
from ccnet.export.reference import Reference

Ccnet = Callable[..., Any]


BASE = Manifest(
    config={"width": 32}, weights_sha256="5a" * 32, context_size=3, input="float32", tools={"ccnet": "0"}, halo=16
)


GAIN = np.eye(3, dtype=np.float32)[2 - np.arange(31) * 3 // 31]


GRAPHS = {"encode.fp32.onnx": "encode", "decode.fp32.onnx": "decode", "decode.fp16.onnx": "decode"}


ENGINES = ("encode.fp32.tensorrt_rtx.engine", "decode.fp16.tensorrt_rtx.engine")


RTX = EngineSet(backend="tensorrt_rtx", tile=64)


SHAPES = {"rgb": ((1, 3, 16, 16), (1, 3, 64, 64), (1, 3, 64, 64))}


OPTIONS = BuildOptions(backend="tensorrt_rtx", shapes=SHAPES)


def graph(kind: str) -> onnx.ModelProto:
    """encode: the frame's mean colour; decode: a blue, a green and a red third of the bands, and no context."""
    rgb = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, "H", "W"])
    context = helper.make_tensor_value_info("context", TensorProto.FLOAT, [1, 3])
    cube = helper.make_tensor_value_info("cube", TensorProto.FLOAT, [1, 31, "H", "W"])
    if kind == "encode":
        weights = [numpy_helper.from_array(np.array([2, 3]), "axes")]
        nodes = [helper.make_node("ReduceMean", ["rgb", "axes"], ["context"], keepdims=0)]
        made = helper.make_graph(nodes, kind, [rgb], [context], weights)
    else:
        weights = [numpy_helper.from_array(GAIN.reshape(31, 3, 1, 1), "gain")]
        weights.append(numpy_helper.from_array(np.float32(0), "zero"))
        nodes = [
            helper.make_node("Conv", ["rgb", "gain"], ["colour"]),
            helper.make_node("ReduceMin", ["context"], ["least"], keepdims=0),
            helper.make_node("Mul", ["least", "zero"], ["nothing"]),
            helper.make_node("Add", ["colour", "nothing"], ["cube"]),
        ]
        made = helper.make_graph(nodes, kind, [rgb, context], [cube], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {MANIFEST_KEY: BASE.to_json()})
    return model


def reference() -> Reference:
    frame = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    colour = frame.astype(np.float32) / np.float32(255)
    cube = np.ascontiguousarray((colour @ GAIN.T).transpose(2, 0, 1))
    return Reference(source="noise", made_by="numpy", frame=frame, context=colour.mean((0, 1))[None], cube=cube)


def entry(folder: Path, name: str, kind: str, format: str, precision: str) -> Artifact:
    return Artifact(file=name, kind=kind, format=format, precision=precision, sha256=sha256(folder / name))


def damaged(data: bytes, seed: int) -> bytes:
    """Return the data truncated for every third seed, otherwise with bits flipped in the header or anywhere."""
    rng, changed = np.random.default_rng(seed), bytearray(data)
    if seed % 3 == 0:
        return data[: rng.integers(len(data))]
    for at in rng.integers(0, len(data) if seed % 3 == 1 else min(len(data), 400), int(rng.integers(1, 12))):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def vouch(folder: Path) -> None:
    """Write the SHA-256 of the files as they are into the manifest."""
    manifest = Manifest.read(folder)
    artifacts = tuple(replace(one, sha256=sha256(folder / one.file)) for one in manifest.artifacts)
    replace(manifest, artifacts=artifacts).write(folder)


def assert_refused(result: Any, *said: str) -> None:
    assert result.code == 2, result
    assert result.err.startswith("ccnet: ") and result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for words in said:
        assert words in result.err
