"""Kernels and bytes of engines: counted from lines that TensorRT-RTX printed, and in engines that are built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccnet.contract import ArtifactFolder
from ccnet.export.engine.kernel_count import count_kernels
from ccnet.export.engine.plan import EngineSet
from ccnet.export.engine.plan import build as build_engines
from ccnet.model import CCNet
from tests.requirements import needs_rtx

from .gated_model import HALF, PLANAR, Build, model

RECORDED = Path(__file__).with_name("kernels.log")
STATIC = {"rgb": ((1, 3, 64, 64),) * 3}


def test_recorded_kernels_are_counted_by_part() -> None:
    plane, image = 512 * 512, 32 * 512 * 512
    assert count_kernels(RECORDED.read_text().splitlines()) == {
        "NeSCM": (1, 192 * plane * 2 + image * 2),
        "GrSCM": (1, image * 2 + image * 4 + 32 * 32 * 2 + image * 4),
        "PAF": (1, image * 2 + 2 * (4 * plane * 2)),
        "FFN": (1, image * 4 + image * 2),
        "rest": (2, 3 * plane * 4 + 4 * plane * 2 + image * 2 + image * 2),
    }


def test_tensor_of_free_size_leaves_the_bytes_uncounted() -> None:
    free = RECORDED.read_text().replace("[1,192,512,512]", "[1,192,-1,-1]")
    counts = count_kernels(free.splitlines())
    assert counts["NeSCM"] == (1, None)
    assert counts["FFN"][1] is not None


def test_other_messages_are_no_kernels() -> None:
    assert count_kernels(["Name: Conv, without a type", "Local timing cache in use.", ""]) == {}


@needs_rtx
def test_built_engine_has_its_kernels_counted(build: Build) -> None:
    pixels, report = 64 * 64, build(model(HALF), STATIC)
    (part, (kernels, moved)), *others = report.kernels.items()
    assert (part, others) == ("rest", [])
    assert 1 <= kernels <= report.layers
    least = 3 * pixels * 4 + 4 * pixels * 4  # rgb and cube, float32
    assert moved is not None
    assert least < moved < 10 * least


@needs_rtx
def test_kernels_of_free_sizes_are_counted_without_their_bytes(build: Build) -> None:
    assert build(model(HALF), PLANAR).kernels["rest"][1] is None


@needs_rtx
def test_one_unit_is_built_to_at_most_180_kernels(artifacts: tuple[CCNet, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in artifacts[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest, (_, decode) = build_engines(folder, EngineSet(backend="tensorrt_rtx", static=True, full=False))
    assert sum(kernels for kernels, _ in decode.kernels.values()) <= 180
    assert sum(moved or 0 for _, moved in decode.kernels.values()) <= 5e9
    entry = manifest.find("decode", format="tensorrt_rtx", precision="fp16")
    assert {part: tuple(counts) for part, counts in entry.details["kernels"].items()} == decode.kernels
    assert ArtifactFolder.open(folder).is_intact([entry])


@needs_rtx
@pytest.mark.slow
def test_papers_decode_is_built_to_few_kernels_that_move_at_most_15_gb(
    benchmark_weights: tuple[CCNet, Path], tmp_path: Path, build: Build
) -> None:
    graph = (benchmark_weights[1] / "decode.fp16.onnx").read_bytes()
    counts = build(graph, {"rgb": ((1, 3, 512, 512),) * 3}).kernels
    assert sum(kernels for kernels, _ in counts.values()) <= 510  # 497, and those of the cube's sum
    assert sum(moved or 0 for _, moved in counts.values()) <= 15e9
