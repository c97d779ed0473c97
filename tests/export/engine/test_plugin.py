"""Engines with the plugin: the graph that they are built from, what they exclude, and their kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccnet.contract import PLUGIN_FORMAT, Artifact, ArtifactFolder, CCNetError
from ccnet.export.engine import builder, plan, plugin
from ccnet.export.engine.builder import BuildOptions, build_engine
from ccnet.export.engine.plan import EngineSet
from ccnet.model import CCNet
from ccnet.ops.cuda.variants import HEADS

WANTED = EngineSet(backend="tensorrt", plugin=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"backend": "tensorrt_rtx"}, "tensorrt_rtx runs no plugins, and its parser dies on them: leave --plugin out"),
        ({"precision": "fp32"}, "the plugin is for fp16 engines"),
        ({"strip": True}, "the plugin is for fp16 engines with their weights"),
        ({"compatible": True}, "the plugin is for fp16 engines with their weights and of one GPU"),
    ],
)
def test_options_that_exclude_the_plugin_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(CCNetError, match=reason):
        EngineSet(**{"backend": "tensorrt", "plugin": True, **options})


def test_builder_refuses_a_plugin_for_tensorrt_rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.trt, "load", lambda name: None)
    options = BuildOptions(backend="tensorrt_rtx", shapes={}, plugin=True)
    with pytest.raises(CCNetError, match="tensorrt_rtx runs no plugins, and its parser dies on them"):
        build_engine(tmp_path / "graph.onnx", tmp_path / "engine", options)


def test_command_line_refuses_in_one_line(ccnet: Callable[..., Any], artifacts: tuple[CCNet, Path]) -> None:
    result = ccnet("build", artifacts[1], "--backend", "tensorrt-rtx", "--plugin")
    assert result.code == 2
    assert "tensorrt_rtx runs no plugins" in result.err


def test_folder_without_the_graph_names_the_command(
    artifacts: tuple[CCNet, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.trt, "load", lambda name: None)
    monkeypatch.setattr(plan.trt, "title", lambda name: f"{name} 10.3.0")
    with pytest.raises(CCNetError, match="the graph for the plugin comes from: ccnet export FOLDER --plugin"):
        plan.plan(artifacts[1], WANTED)


def test_decode_alone_is_built_from_the_graph_with_the_plugin(
    artifacts: tuple[CCNet, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ArtifactFolder.open(artifacts[1])
    entry = Artifact(file="decode.fp16.plugin.onnx", kind="decode", format=PLUGIN_FORMAT, precision="fp16", sha256="0")
    found = folder.manifest.with_artifact(entry)
    monkeypatch.setattr(folder, "manifest", found)
    assert plan._source(folder, "decode", "fp16", True) == entry
    assert plan._source(folder, "decode", "fp16", False).file == "decode.fp16.onnx"


def test_kernels_are_compiled_for_the_gpu_and_every_number_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "compile_cubin", lambda variant, capability: f"{variant.heads} {capability}".encode())
    kernels = plugin.compile_kernels("Orin (sm_87)")
    assert {heads: kernel.code for heads, kernel in kernels.items()} == {n: f"{n} (8, 7)".encode() for n in HEADS}
    assert {n: (k.rows, k.columns, k.threads) for n, k in kernels.items()} == {
        1: (8, 32, 340),
        2: (8, 16, 180),
        4: (8, 8, 100),
    }


def test_gpu_of_unknown_architecture_is_refused() -> None:
    with pytest.raises(CCNetError, match="the architecture of a GPU is unknown: build without --plugin"):
        plugin.compile_kernels("a GPU")
