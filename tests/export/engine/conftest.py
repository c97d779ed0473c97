"""A builder of small models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from ccnet.export.engine.builder import BuildOptions, build_engine
from ccnet.export.engine.report import EngineReport, Range

from .gated_model import PLANAR, Build


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a model, or arbitrary bytes in its place, with tensorrt_rtx into ``tmp_path / 'engine'``."""

    def build(
        source: onnx.ModelProto | bytes, shapes: Mapping[str, Range] = PLANAR, *, progress: Any = None, **changes: Any
    ) -> EngineReport:
        path = tmp_path / "model.onnx"
        path.write_bytes(source if isinstance(source, bytes) else source.SerializeToString())
        options = BuildOptions(**{"backend": "tensorrt_rtx", "shapes": shapes, **changes})
        return build_engine(path, tmp_path / "engine", options, progress=progress)

    return build
