"""Graphs as ONNX files, and the hash of a file's structure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx
import onnx_ir as ir


def stamp(model: ir.Model, metadata: Mapping[str, str]) -> bytes:
    """Return the checked ONNX file, with metadata."""
    model.metadata_props.update(metadata)
    model.producer_name, model.producer_version = "ccnet", None
    data = bytes(ir.to_proto(model).SerializeToString())
    onnx.checker.check_model(data, full_check=True)
    return data


def structure(data: bytes) -> str:
    """Return the hash of an ONNX file without metadata and values of weights, which a stripped engine depends on."""
    model = onnx.load_model_from_string(data)
    del model.metadata_props[:]
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            tensor.ClearField("raw_data")
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
