"""The engines that are built for a folder, and when they are up to date."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ccnet.contract import ONNX_FORMATS, Artifact, CCNetError, Manifest
from ccnet.export.artifacts import export
from ccnet.export.engine import plan as module
from ccnet.export.engine.builder import BuildOptions
from ccnet.export.engine.plan import EngineSet, build, choose, plan
from ccnet.export.engine.report import EngineReport
from ccnet.export.graph.serialize import structure
from ccnet.model import CCNet
from ccnet.runtime.backends import trt_api as trt
from tests.requirements import needs_rtx

Artifacts = tuple[CCNet, Path]
Ccnet = Callable[..., Any]

RTX = EngineSet(backend="tensorrt_rtx", tile=192, full=False)
WITH_FULL = replace(RTX, full=True)


@pytest.fixture
def copy(artifacts: Artifacts, tmp_path: Path) -> Path:
    """Return a copy of the artifact folder that the test may change."""
    return Path(shutil.copytree(artifacts[1], tmp_path / "copy"))


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the builder by a stub without TensorRT; return the list of options that it was called with."""
    asked: list[dict[str, Any]] = []

    def build_engine(source: Path, target: Path, options: BuildOptions, **_: Any) -> EngineReport:
        asked.append({"source": source.name, **asdict(options)})
        target.write_bytes(f"engine {len(asked)}".encode())
        return EngineReport(
            backend=options.backend,
            version="1.7.1.116",
            gpu="",
            layers=3,
            types={"HALF": 2, "FLOAT": 1},
            bytes=8,
            seconds=0.5,
            io=(),
            purpose="for tests",
            kernels={"NeSCM": (138, 3_000_000_000), "rest": (90, None)},
        )

    monkeypatch.setattr(module, "build_isolated", build_engine)
    monkeypatch.setattr(trt, "load", lambda name: None)
    monkeypatch.setattr(trt, "title", lambda name: f"{name} 1.7.1")
    monkeypatch.setattr(trt, "has_gpu", lambda: False)
    return asked


def engines(manifest: Manifest) -> list[Artifact]:
    return [artifact for artifact in manifest.artifacts if artifact.format not in ONNX_FORMATS]


def reasons(folder: Path, options: EngineSet) -> list[str]:
    return [job.why for job in plan(folder, options)]


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "static"), [("fp32", False), ("fp16", True)])
def test_real_engines_are_built_and_stay_within_a_budget(copy: Path, precision: Any, static: bool) -> None:
    memory = 110_000_000
    wanted = replace(WITH_FULL, precision=precision, static=static).within(memory, Manifest.read(copy))
    assert (wanted.encode_side, wanted.tile) == (176, 208 if precision == "fp16" else 176)
    manifest, reports = build(copy, wanted)
    encode, decode, full = engines(manifest)
    assert (encode.precision, decode.precision, full.precision) == ("fp32", precision, precision)
    assert encode.details["window"] == full.details["window"] == [16, 176]
    assert decode.details["window"] == [wanted.tile if static else 16, wanted.tile]
    rgb = next(tensor for tensor in reports[1].io if tensor.name == "rgb")
    assert rgb.shape == ((1, 3, wanted.tile, wanted.tile) if static else (1, 3, -1, -1))
    half = decode.details["types"].get("HALF", 0)
    assert half > 100 if precision == "fp16" else half == 0, "a graph's precision is its engine's"
    assert all(artifact.read(copy) for artifact in engines(Manifest.read(copy)))
    for engine, report in zip((encode, decode, full), reports, strict=True):
        assert 1_000_000 < engine.details["scratch_bytes"] == report.scratch_bytes
        assert engine.details["window"][1] ** 2 * engine.details["bytes_per_pixel"] < memory


def test_unchanged_engines_are_not_built_again(copy: Path, builder: list[dict[str, Any]]) -> None:
    assert reasons(copy, RTX) == ["there is none"] * 2
    manifest, reports = build(copy, RTX)
    assert (len(reports), len(builder)) == (2, 2)
    assert [one["source"] for one in builder] == ["encode.fp32.onnx", "decode.fp16.onnx"]
    assert reasons(copy, RTX) == ["", ""]
    assert build(copy, RTX) == (manifest, [])
    assert len(builder) == 2


def test_full_is_built_for_frames_that_encode_and_decode_take_whole(copy: Path, builder: list[dict[str, Any]]) -> None:
    build(copy, replace(WITH_FULL, static=True))
    assert [one["source"] for one in builder] == ["encode.fp32.onnx", "decode.fp16.onnx", "full.fp16.onnx"]
    shapes = [tuple(shape[2] for shape in one["shapes"]["rgb"]) for one in builder]
    assert shapes == [(16, 640, 640), (192, 192, 192), (16, 192, 192)]
    assert reasons(copy, replace(WITH_FULL, tile=208, static=True))[2].startswith("graph, options")
    build(copy, replace(WITH_FULL, tile=1024))
    assert builder[-1]["shapes"]["rgb"][2] == (1, 3, 640, 640), "encode takes no more"


def test_without_its_graph_no_full_is_built(ccnet: Ccnet, copy: Path, builder: list[dict[str, Any]]) -> None:
    found = Manifest.read(copy)
    replace(found, artifacts=tuple(a for a in found.artifacts if a.kind != "full")).write(copy)
    result = ccnet("build", copy, "--backend", "tensorrt-rtx", "--tile", 192)
    assert result.code == 0, result.err
    assert "no engine of full: the folder has no graph of it in fp16; frames take two passes" in result.err
    assert [one["source"] for one in builder] == ["encode.fp32.onnx", "decode.fp16.onnx"]


def test_no_full_leaves_it_out(ccnet: Ccnet, copy: Path, builder: list[dict[str, Any]]) -> None:
    result = ccnet("build", copy, "--backend", "tensorrt-rtx", "--tile", 192, "--no-full")
    assert result.code == 0 and "no engine of full" not in result.err
    assert len(builder) == 2


def test_no_full_removes_an_earlier_one(ccnet: Ccnet, copy: Path, builder: list[dict[str, Any]]) -> None:
    build(copy, WITH_FULL)
    arguments = ("build", copy, "--backend", "tensorrt-rtx", "--tile", 192, "--no-full")
    assert "full.fp16.tensorrt_rtx.engine: to remove" in ccnet(*arguments, "--dry-run").err
    assert len(engines(Manifest.read(copy))) == 3
    assert "full.fp16.tensorrt_rtx.engine: to remove" in ccnet(*arguments).err
    assert [engine.kind for engine in engines(Manifest.read(copy))] == ["encode", "decode"]
    assert not (copy / "full.fp16.tensorrt_rtx.engine").exists()
    assert "up to date" in ccnet(*arguments).err
    assert len(builder) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"tile": 208},
        {"static": True},
        {"compatible": True},
        {"strip": True},
        {"workspace_bytes": 1 << 20},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_options_rebuild_the_decoder(copy: Path, builder: list[dict[str, Any]], change: dict[str, Any]) -> None:
    build(copy, RTX)
    assert reasons(copy, replace(RTX, **change))[1].startswith("graph, options")
    build(copy, replace(RTX, **change))
    assert reasons(copy, replace(RTX, **change)) == ["", ""]
    assert len(engines(Manifest.read(copy))) == 2, "they replace those before them"


def test_another_precision_builds_another_file(copy: Path, builder: list[dict[str, Any]]) -> None:
    build(copy, RTX)
    build(copy, replace(RTX, precision="fp32"))
    assert [one["source"] for one in builder] == ["encode.fp32.onnx", "decode.fp16.onnx", "decode.fp32.onnx"]
    assert len(engines(Manifest.read(copy))) == 3


def test_damaged_or_missing_engine_is_built_again(copy: Path, builder: list[dict[str, Any]]) -> None:
    build(copy, RTX)
    (copy / "encode.fp32.tensorrt_rtx.engine").unlink()
    (copy / "decode.fp16.tensorrt_rtx.engine").write_bytes(b"damaged")
    assert reasons(copy, RTX) == ["there is none", "the one that is there is damaged"]
    assert len(build(copy, RTX)[1]) == 2
    assert len(build(copy, RTX, force=True)[1]) == 2


def test_int8_without_a_calibrated_graph_is_refused(copy: Path, builder: list[dict[str, Any]]) -> None:
    with pytest.raises(CCNetError, match="no decode artifact of format onnx and precision int8"):
        plan(copy, replace(RTX, precision="int8"))


def test_damaged_graph_is_not_built(copy: Path, builder: list[dict[str, Any]]) -> None:
    (copy / "decode.fp16.onnx").write_bytes(b"damaged")
    with pytest.raises(CCNetError, match=r"decode\.fp16\.onnx: SHA-256"):
        build(copy, RTX)
    assert not builder and not list(copy.glob("*.engine"))


@pytest.mark.slow
def test_stripped_engines_survive_an_export_of_other_weights(
    network: CCNet, copy: Path, builder: list[dict[str, Any]]
) -> None:
    """An export of other weights for the same network keeps stripped engines and drops engines with the old weights."""
    build(copy, replace(RTX, strip=True))
    build(copy, replace(RTX, precision="fp32"))
    changed = Manifest.read(copy)
    before = changed.find("decode", precision="fp16").details["structure"]
    network.conv_in.weight.data.mul_(1.1)
    again = export(network, copy)
    assert again.weights_sha256 != changed.weights_sha256
    assert again.find("decode", precision="fp16").details["structure"] == before
    kept = engines(again)
    assert [one.file for one in kept] == ["decode.fp16.tensorrt_rtx.engine"]
    assert reasons(copy, replace(RTX, strip=True))[1] == ""
    assert structure((copy / "decode.fp32.onnx").read_bytes()) != before


def test_choice_of_backend_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(loads: list[str], gpu: bool, name: str = "Orin (sm_87)") -> tuple[trt.Name | None, str]:
        monkeypatch.setattr(trt, "available", lambda: loads)
        monkeypatch.setattr(trt, "has_gpu", lambda: gpu)
        monkeypatch.setattr(module, "gpu", lambda device: name)
        return choose("auto")

    assert machine(["tensorrt", "tensorrt_rtx"], True) == ("tensorrt", "TensorRT is here, and Orin (sm_87) for it")
    assert machine(["tensorrt", "tensorrt_rtx"], False)[0] == "tensorrt_rtx"
    name, why = machine(["tensorrt_rtx"], True, "H200 (sm_90)")
    assert name is None and "no kernels for H200 (sm_90)" in why
    assert machine(["tensorrt_rtx"], True, "RTX 2080 Ti (sm_75)")[0] == "tensorrt_rtx"
    name, why = machine([], True)
    assert name is None and "ONNX Runtime runs the graphs themselves" in why
    assert choose("onnxruntime")[0] is None
    assert choose("tensorrt")[0] == "tensorrt", "what was asked for is never replaced"


def test_engine_for_turing_names_its_architecture(
    copy: Path, builder: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(copy, RTX)
    monkeypatch.setattr(trt, "has_gpu", lambda: True)
    monkeypatch.setattr(module, "gpu", lambda device: "RTX 2080 Ti (sm_75)")
    assert reasons(copy, RTX)[0].startswith("graph, options"), "those for other GPUs are built again"
    manifest, _ = build(copy, RTX)
    assert [one["capability"] for one in builder] == [None, None, (7, 5), (7, 5)]
    assert {one.details["capability"] for one in engines(manifest)} == {"7.5"}


def test_dry_run_reports_the_plan_and_builds_nothing(ccnet: Ccnet, copy: Path, builder: list[dict[str, Any]]) -> None:
    before = sorted(copy.iterdir())
    result = ccnet("build", copy, "--backend", "tensorrt-rtx", "--memory", 400, "--static", "--dry-run")
    assert result.code == 0, result.err
    assert "tensorrt-rtx was asked for" in result.err
    assert (
        "decode.fp16.tensorrt_rtx.engine: of decode.fp16.onnx, rgb 1×3×416×416: to build, there is none" in result.err
    )
    assert "encode.fp32.tensorrt_rtx.engine: of encode.fp32.onnx, rgb 1×3×16×16 to 1×3×336×336" in result.err
    assert sorted(copy.iterdir()) == before and not builder


def test_second_build_reports_nothing_to_build(ccnet: Ccnet, copy: Path, builder: list[dict[str, Any]]) -> None:
    arguments = ("build", copy, "--backend", "tensorrt-rtx", "--tile", 192)
    first = ccnet(*arguments)
    assert first.code == 0, first.err
    assert "built in 0 s: 0 kB from 3 layers (1 FLOAT, 2 HALF)" in first.err
    second = ccnet(*arguments)
    assert second.code == 0 and "up to date, nothing to build" in second.err
    assert len(builder) == 3


def test_tile_and_memory_together_are_refused(ccnet: Ccnet, copy: Path, builder: list[dict[str, Any]]) -> None:
    result = ccnet("build", copy, "--backend", "tensorrt-rtx", "--tile", 192, "--memory", 400)
    assert result.code == 2 and "--tile and --memory both" in result.err
