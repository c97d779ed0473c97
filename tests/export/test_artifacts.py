"""An export is compared with PyTorch before it is written."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from ccnet.contract import CCNetError
from ccnet.export.artifacts import GraphKey, _compare
from ccnet.model import CCNet, CCNetConfig
from tests.conftest import randomised

Artifacts = tuple[CCNet, Path]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graph_of_another_network_is_refused(
    precision: str, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On ARM, where ONNX Runtime adds up in FP16 and no limit is set, FP16 is not judged, but it must load and run."""
    torch.manual_seed(1)
    other = randomised(CCNet(CCNetConfig(units=1)))
    files = {GraphKey("decode", precision): (artifacts[1] / f"decode.{precision}.onnx").read_bytes()}
    with pytest.raises(CCNetError, match=rf"the decode onnx graph in {precision} is not what PyTorch computes"):
        _compare(other, files, "float32")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    if precision == "fp16":
        _compare(other, files, "float32")
    else:
        with pytest.raises(CCNetError, match="is not what PyTorch computes"):
            _compare(other, files, "float32")
    with pytest.raises(CCNetError, match="cannot be loaded"):
        _compare(other, {key: data[:1000] for key, data in files.items()}, "float32")
