"""The comparisons of a check, their verdicts, and golden outputs as references instead of torch."""

from __future__ import annotations

import io
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import HALO, MANIFEST_NAME, SIZE_MULTIPLE, CCNetError, Manifest
from ccnet.export import verify
from ccnet.export.reference import Reference, by_torch, golden, pack
from ccnet.export.verify import Comparison, check
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor, reconstructor
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.onnxruntime import operators
from ccnet.runtime.backends.select import select
from ccnet.runtime.io.frames import block_mean
from ccnet.runtime.quality.tolerances import TOLERANCES, Parity

Artifacts = tuple[CCNet, Path]

SMALLEST = 2 * HALO + SIZE_MULTIPLE


@pytest.fixture(scope="module")
def reference(artifacts: Artifacts) -> Reference:
    """Return a reference as wide as two of the smallest tiles."""
    frame = np.random.default_rng(0).integers(0, 256, (40, SMALLEST + 30, 3), np.uint8)
    return by_torch(artifacts[0], frame, "noise")


@pytest.fixture(scope="module")
def rows(artifacts: Artifacts, reference: Reference) -> dict[str, Comparison]:
    return {row.what: row for row in check(artifacts[1], reference, tile=320)}


def test_every_graph_is_compared_and_passes(rows: dict[str, Comparison]) -> None:
    tiles = f"{SMALLEST + 16} px tiles"  # smaller than asked for, or nothing would be tiled
    judged = {what: row.tolerance for what, row in rows.items() if row.tolerance}
    assert judged == {
        "full fp32": "fp32",
        "encode fp32": "fp32",
        "decode fp32": "fp32",
        f"decode fp32, {tiles}": "tiled",
        f"decode fp16, {tiles}": "fp16",
        **({f"{kind} fp32, unrolled": "fp32" for kind in ("full", "encode", "decode")} if operators() else {}),
    }
    assert all(row.verdict == "passes" and 0 < row.tolerance_used <= 1 for row in rows.values() if row.tolerance)
    assert {rows[what].verdict for what in ("default context", "context of 1/4 of the pixels")} == {"reported"}


def test_frame_of_a_single_tile_has_no_tiled_row(artifacts: Artifacts, reference: Reference) -> None:
    small = by_torch(artifacts[0], reference.frame[:, :32], "corner")
    assert not any(row.tolerance == "tiled" for row in check(artifacts[1], small))


def test_fp16_is_reported_on_an_arm_cpu_which_adds_up_in_fp16(
    artifacts: Artifacts, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    wrong = replace(reference, cube=reference.cube + np.float32(0.01))
    rows = {row.what: row for row in check(artifacts[1], wrong)}
    (name,) = (what for what in rows if "fp16" in what)
    assert name.endswith(", FP16 sums") and rows[name].verdict == "reported"
    assert rows["decode fp32"].verdict == "FAILS"


@pytest.mark.parametrize("refusal", ["", "the CUDA provider does not start"])
def test_cuda_provider_is_compared_where_there_is_a_gpu(
    artifacts: Artifacts, reference: Reference, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    """The provider is played by the CPU's, behind its name."""

    def select_cpu(folder: Any, backend: str = "auto", precision: Any = None, device: int = 0) -> Any:
        return select(folder, "onnxruntime" if backend == "onnxruntime-cuda" else backend, precision)

    probed: list[str] = []
    monkeypatch.setattr(trt, "has_gpu", lambda: True)
    monkeypatch.setattr(verify, "cuda_refusal", lambda device: refusal)
    monkeypatch.setattr(verify, "_cannot_run", lambda format, device: "no engine here")
    monkeypatch.setattr(verify, "probe_in_subprocess", lambda folder, backend, *_: probed.append(backend))
    monkeypatch.setattr(reconstructor, "select", select_cpu)
    found = {row.what: row for row in check(artifacts[1], reference, tile=320) if "CUDA provider" in row.what}
    if refusal:
        (row,) = found.values()
        assert row.verdict == "not run" and refusal in row.backend and not probed
        return
    assert {what: (row.tolerance, row.broken) for what, row in found.items()} == {
        "encode fp32, CUDA provider": ("fp32", []),
        "decode fp32, CUDA provider": ("fp32", []),
        "full fp32, CUDA provider": ("fp32", []),
    }
    assert probed == ["onnxruntime-cuda"]


def test_wrong_reference_fails_where_it_is_wrong(artifacts: Artifacts, reference: Reference) -> None:
    cube = reference.cube.copy()
    cube[7, 21, 33] += 0.01
    found = {row.what: row for row in check(artifacts[1], replace(reference, cube=cube))}
    assert found["full fp32"].verdict == found["decode fp32"].verdict == "FAILS"
    assert found["encode fp32"].verdict == "passes"
    worst = found["decode fp32"].largest
    assert worst is not None and worst.pixel == (21, 33)
    assert worst.differences[21, 33] == pytest.approx(0.01, rel=1e-3) and worst.differences.argmax() == 21 * 206 + 33
    assert np.argmax(np.abs(worst.expected - worst.actual)) == 7


def test_another_context_fails_in_encode_alone(artifacts: Artifacts, reference: Reference) -> None:
    """Decode runs under the reference's own context, so a fault is blamed on the graph that has it."""
    context = reference.context.copy()
    context[0, 0] += 0.1
    found = {row.what: row for row in check(artifacts[1], replace(reference, context=context))}
    assert found["encode fp32"].verdict == "FAILS"


@pytest.mark.parametrize("limit", [64, 112])
def test_context_of_a_limited_encode_is_compared_under_the_same_block_means(
    artifacts: Artifacts, reference: Reference, tmp_path: Path, limit: int
) -> None:
    """An engine takes frames up to 1024 px; here ``encode`` on the CPU has such a limit, below the frame's 206 px."""
    folder = Path(shutil.copytree(artifacts[1], tmp_path / "copy"))
    manifest = Manifest.read(folder)
    limited = (
        replace(one, details={**one.details, "window": [16, limit]}) if one.kind == "encode" else one
        for one in manifest.artifacts
    )
    replace(manifest, artifacts=tuple(limited)).write(folder)
    side = -(-reference.frame.shape[1] // limit)
    found = {row.what: row for row in check(folder, reference)}
    row = found[f"encode fp32, {side} px means"]
    assert row.verdict == "passes" and "encode fp32" not in found
    with Reconstructor.open(folder, input_space="camera", backend="onnxruntime", encode_pixels=1 << 20) as runner:
        context = runner.encode(reference.frame)
    assert np.abs(context - reference.context).max() > 2e-5, "the whole frame's context would fail it"
    reduced = by_torch(artifacts[0], block_mean(np.float32(reference.frame / np.float32(255)), side), "means")
    np.testing.assert_allclose(context, reduced.context, atol=TOLERANCES["fp32"].max_abs)


def test_tolerance_used_is_the_largest_share_of_a_limit() -> None:
    parity = Parity(mrae=1e-3, sam=0, psnr=80, max_abs=1, mean_abs=3e-5)
    row = Comparison(what="", against="", backend="", parity=parity, tolerance="fp16")
    assert row.tolerance_used == pytest.approx(1e-3 / (TOLERANCES["fp16"].mrae or 0))
    assert replace(row, tolerance=None).tolerance_used == 0
    assert replace(row, parity=None).verdict == "not run"


def test_golden_outputs_round_trip_through_bytes(artifacts: Artifacts, reference: Reference) -> None:
    manifest = Manifest.read(artifacts[1])
    (found,) = golden(pack([reference]), manifest)
    assert (found.source, found.made_by) == (reference.source, reference.made_by)
    for name in ("frame", "context", "cube"):
        np.testing.assert_array_equal(getattr(found, name), getattr(reference, name), strict=True)


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda one: b"", "not golden outputs"),
        (lambda one: pack([one])[:-40], "not golden outputs"),
        (lambda one: pack([]), "holds no frame"),
        (lambda one: archive(sources=["a"], made_by=["b"]), "not golden outputs"),
        (lambda one: archive(sources=np.array([{}], object), made_by=["b"]), "not golden outputs"),
        (lambda one: pack([replace(one, frame=one.frame[0])]), r"a frame is uint8 \(206, 3\)"),
        (lambda one: pack([replace(one, cube=one.cube[:, 1:])]), r"an output is float32 \(31, 39, 206\), expected"),
        (lambda one: pack([replace(one, context=one.context.astype(float))]), "an output is float64"),
    ],
    ids=["empty", "cut", "no frame", "no arrays", "pickle", "frame", "cube", "context"],
)
def test_invalid_golden_outputs_are_refused(
    artifacts: Artifacts, reference: Reference, data: Callable[[Reference], bytes], words: str
) -> None:
    with pytest.raises(CCNetError, match=words):
        golden(data(reference), Manifest.read(artifacts[1]))


def test_another_networks_golden_outputs_are_refused(
    artifacts: Artifacts, reference: Reference, tmp_path: Path
) -> None:
    manifest = replace(Manifest.read(artifacts[1]), context_size=reference.context.size + 1)
    with pytest.raises(CCNetError, match="an output is float32"):
        golden(pack([reference]), manifest)


def test_incomplete_folder_is_refused(artifacts: Artifacts, reference: Reference, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts[1], tmp_path / "copy"))
    (folder / "full.fp32.onnx").unlink()
    with pytest.raises(CCNetError, match=r"full\.fp32\.onnx"):
        list(check(folder, reference))
    (folder / MANIFEST_NAME).unlink()
    with pytest.raises(CCNetError, match=MANIFEST_NAME):
        list(check(folder, reference))
