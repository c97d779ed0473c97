"""The configurations of the server's models: ``config.pbtxt``, the text format of Triton's message ModelConfig.

Dims are those of one request. All models have ``max_batch_size: 0``: frames differ in size, and a tile is decoded
under the context of its own frame, so that two requests never share a run (docs/serving.md). ``dynamic_batching``
without batches, for the limit of its queue, is left out: it delays each request that waits (docs/decisions.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ccnet.contract import BANDS_NM, CONTEXT, CUBE, CUBE_SUM, RGB, Artifact, CCNetError, Manifest

FRAME, IMAGE, PROJECTION, DENOMINATOR = "frame", "image", "projection", "denominator"
"""Inputs of the model ``ccnet``; every request has either ``frame`` or ``image``."""

HEADER = "# Written by 'ccnet serve export'"
"""First line of every configuration; a model without it is another's, and is kept."""


class Word(str):
    """The name of an enumerator, which the text format writes without quotes."""


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The copies of a model that the server runs at the same time.

    Attributes:
        count: Copies on each device.
        gpus: Indices of the GPUs; empty for the CPU.
    """

    count: int = 1
    gpus: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.gpus, default=0) < 0:
            raise CCNetError(f"instances are {self.count} on GPUs {self.gpus}, expected at least 1, and GPUs from 0 on")

    def message(self) -> dict[str, Any]:
        """Return the message ModelInstanceGroup."""
        if self.gpus:
            return {"count": self.count, "kind": Word("KIND_GPU"), "gpus": list(self.gpus)}
        return {"count": self.count, "kind": Word("KIND_CPU")}


def frame_model(settings: Any, instances: Instances) -> dict[str, Any]:
    """Return the configuration of ``ccnet``: frame or picture in, cube or projection out.

    Args:
        settings: Dataclass of plain values, which become the model's parameters.
        instances: Copies of the model.

    Returns:
        The message ModelConfig.
    """
    bands = len(BANDS_NM)
    return {
        "name": "ccnet",
        "backend": "python",
        "max_batch_size": 0,
        "input": [
            _tensor(FRAME, "UINT8", [-1, -1, 3], optional=True),
            _tensor(IMAGE, "UINT8", [-1], optional=True),
            _tensor(PROJECTION, "FP32", [-1, bands], optional=True),
            _tensor(DENOMINATOR, "FP32", [-1, bands], optional=True),
        ],
        "output": [_tensor(CUBE, "FP32", [-1, -1, -1])],
        "instance_group": [instances.message()],
        "parameters": [
            {"key": name, "value": {"string_value": str(value)}}
            for name, value in asdict(settings).items()
            if value is not None
        ],
    }


def graph_model(artifact: Artifact, manifest: Manifest, instances: Instances) -> dict[str, Any]:
    """Return the configuration of ``encode`` or ``decode``, for the server's own backends.

    Args:
        artifact: Entry of the graph or of the engine.
        manifest: Manifest of its folder.
        instances: Copies of the model.

    Returns:
        The message ModelConfig.
    """
    is_graph = artifact.format == "onnx"
    packed = manifest.input == "uint8"
    rgb = _tensor(RGB, "UINT8", [1, -1, -1, 3]) if packed else _tensor(RGB, "FP32", [1, 3, -1, -1])
    context = _tensor(CONTEXT, "FP32", [1, manifest.context_size])
    cube = [_tensor(CUBE, "FP32", [1, len(BANDS_NM), -1, -1])]
    if not is_graph:  # a scalar, which the server's protocol cannot say
        cube.append(_tensor(CUBE_SUM, "FP32", [1]) | {"reshape": {"shape": []}})
    encodes = artifact.kind == "encode"
    return {
        "name": artifact.kind,
        **({"backend": "onnxruntime"} if is_graph else {"backend": "tensorrt", "platform": "tensorrt_plan"}),
        "default_model_filename": "model.onnx" if is_graph else "model.plan",
        "max_batch_size": 0,
        "input": [rgb] if encodes else [rgb, context],
        "output": [context] if encodes else cube,
        "instance_group": [instances.message()],
        "parameters": [{"key": "sha256", "value": {"string_value": artifact.sha256}}],
    }


def to_text(message: Mapping[str, Any]) -> str:
    """Return a message in the text format of protocol buffers, after the line ``HEADER``."""
    return "\n".join([HEADER, *_lines(message), ""])


def _tensor(name: str, type: str, dims: Sequence[int], *, optional: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "data_type": Word(f"TYPE_{type}"),
        "dims": list(dims),
        **({"optional": True} if optional else {}),
    }


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for key, value in message.items():
        if isinstance(value, Mapping):
            yield f"{key} {{"
            yield from (f"  {line}" for line in _lines(value))
            yield "}"
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for item in value:
                yield from _lines({key: item})
        else:
            yield f"{key}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    return value if isinstance(value, Word) else json.dumps(value)  # the same words, numbers and escapes
