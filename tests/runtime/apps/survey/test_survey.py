"""Surveys in one process: what is missing is made, what is wrong is listed, and nothing is half there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from spectral.io.envi import open as open_image

from ccnet.runtime import CCNetError, Projection, Reconstructor, read_cube
from ccnet.runtime.apps.survey import survey, worker
from ccnet.runtime.apps.survey.manifest import Row, read_manifest
from ccnet.runtime.apps.survey.sources import find_frames, read_archive_frame
from ccnet.runtime.apps.survey.survey import Counts, run_survey
from ccnet.runtime.apps.survey.worker import Task
from ccnet.runtime.io.artifact_lock import LOCK_NAME
from tests.runtime.apps.survey.conftest import INDEX, archive
from tests.runtime.conftest import pixels, refusal

FACTS: dict[str, str] = {}  # a manifest of any survey


def rows(task: Task) -> dict[str, Row]:
    return read_manifest(Path(task.out), FACTS)


def run(task: Task, frames: Path, **options: Any) -> tuple[Counts, list[Row]]:
    return run_survey(task, find_frames([str(frames)]), wanted="test", **options)


def test_thousand_frames_of_which_three_are_damaged(task: Callable[..., Task], tmp_path: Path) -> None:
    frames, made = archive(tmp_path / "frames", 1000), task()
    for number in (3, 500, 999):
        (frames / f"{number:04}.npy").write_bytes(b"damaged")
    counts, failed = run(made, frames)
    assert counts == Counts(1000, 0, 997, 3)
    assert [row.frame for row in failed] == ["0003.npy", "0500.npy", "0999.npy"] and all(
        "npy" in row.reason for row in failed
    )
    table = rows(made)
    assert len(table) == 1000 and sum(row.status == "done" for row in table.values()) == 997
    assert len({row.worker for row in table.values()}) == 1
    results = {path.name for path in Path(made.out).iterdir()} - {LOCK_NAME}
    assert len(results) == 998  # with the manifest, and nothing else hidden
    np.save(frames / "0003.npy", pixels(16, 16))
    (Path(made.out) / "0007.npy.npy").unlink()
    counts, failed = run(made, frames)  # what was repaired, what was lost and what is damaged still
    assert counts == Counts(1000, 996, 2, 2)
    assert [row.frame for row in failed] == ["0500.npy", "0999.npy"]


def test_cubes_of_located_frames_are_located(task: Callable[..., Task], tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason='rasterio is not installed: pip install ".[geo]"')
    fsspec = pytest.importorskip("fsspec", reason='fsspec is not installed: pip install ".[scale]"')
    transform, bands = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5400000), pixels(16, 16).transpose(2, 0, 1)
    options = {"height": 16, "width": 16, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32632", transform=transform, **options) as file:
        file.write(bands)
    made, files = task(projection=None, format="tif"), fsspec.filesystem("memory")
    files.put(str(tmp_path / "a.tif"), "/bucket/b.tif")
    signed = f"/bucket/c.tif?signature={300 * 'a'}"  # longer than a file's name can be
    files.put(str(tmp_path / "a.tif"), signed)
    try:
        frames = find_frames([str(tmp_path / "a.tif"), "memory://bucket/b.tif"])
        assert read_archive_frame(f"memory:/{signed}", as_stored=True)[1] is not None
        assert run_survey(made, frames, wanted="test") == (Counts(2, 0, 2, 0), [])
    finally:
        files.rm("/bucket", recursive=True)
    for frame in frames:
        with rasterio.open(Path(made.out, made.output(frame))) as file:
            assert (file.count, file.crs.to_epsg(), file.transform) == (31, 32632, transform)


def test_indices_of_located_frames_are_located(task: Callable[..., Task], tmp_path: Path, folder: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason='rasterio is not installed: pip install ".[geo]"')
    transform, frame = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5400000), pixels(40, 24)
    options = {"height": 40, "width": 24, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32632", transform=transform, **options) as file:
        file.write(frame.transpose(2, 0, 1))
    made = task(format="tif")
    assert run(made, tmp_path / "a.tif") == (Counts(1, 0, 1, 0), [])
    with Reconstructor.open(folder, input_space="srgb") as reconstruct:
        expected = reconstruct.project(frame, INDEX)
    with rasterio.open(Path(made.out, "a.tif.tif")) as file:
        assert (file.crs.to_epsg(), file.transform, file.descriptions) == (32632, transform, INDEX.names)
        np.testing.assert_array_equal(file.read(), expected)
        assert file.tags()["source"] == str(tmp_path / "a.tif")
    (row,) = rows(made).values()
    assert row.sha256 == hashlib.sha256(Path(made.out, row.output).read_bytes()).hexdigest()


def test_indices_are_envi_on_request(task: Callable[..., Task], tmp_path: Path, folder: Path) -> None:
    frame = pixels(40, 24)
    np.save(tmp_path / "a.npy", frame)
    made = task(format="hdr", projection=replace(INDEX, names=("ndre, {at dusk}",)))
    assert run(made, tmp_path / "a.npy") == (Counts(1, 0, 1, 0), [])
    with Reconstructor.open(folder, input_space="srgb") as reconstruct:
        expected = reconstruct.project(frame, INDEX)
    image = open_image(Path(made.out, "a.npy.hdr"))
    np.testing.assert_array_equal(image.load().transpose(2, 0, 1), expected)
    assert image.metadata["band names"] == ["ndre at dusk"]
    assert image.metadata["ccnet source"] == str(tmp_path / "a.npy")
    assert sorted(path.name for path in Path(made.out).glob("a.npy*")) == ["a.npy.hdr", "a.npy.img"]


def test_formats_of_cubes_are_refused_for_indices(ccnet: Callable[..., Any], tmp_path: Path) -> None:
    result = ccnet("survey", tmp_path, "--out", tmp_path / "out", "--index", "edge=700,670", "--format", "nc")
    assert result.code == 2 and "--format nc is for cubes, expected hdr, npy or tif for --band, --index" in result.err
    assert not (tmp_path / "out").exists()


def test_results_equal_those_of_a_reconstructor(task: Callable[..., Task], tmp_path: Path, folder: Path) -> None:
    frames = archive(tmp_path / "frames", 2, 32)
    with Reconstructor.open(folder, input_space="srgb") as reconstruct:
        run(task(), frames)
        expected = reconstruct.project(pixels(32, 32, seed=1), INDEX)
        assert np.array_equal(np.load(tmp_path / "out/0001.npy.npy"), expected, equal_nan=True)
        shutil.rmtree(tmp_path / "out")
        made = task(projection=None)
        run(made, frames)
        assert np.array_equal(read_cube(tmp_path / "out/0001.npy.hdr"), reconstruct(pixels(32, 32, seed=1)))
    row = rows(made)["0001.npy"]
    assert row.sha256 == hashlib.sha256((tmp_path / "out/0001.npy.img").read_bytes()).hexdigest()
    assert "onnxruntime" in row.backend and "decode fp32" in row.backend
    assert (row.height, row.width, row.output, row.disk_full) == (32, 32, "0001.npy.hdr", False) and row.seconds > 0


def test_artifacts_are_opened_once(task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = Reconstructor.open.__func__  # type: ignore[attr-defined]
    counting = classmethod(lambda cls, *a, **k: opened.append(a) or original(cls, *a, **k))
    monkeypatch.setattr(Reconstructor, "open", counting)
    worker._open.cache_clear()
    run(task(), archive(tmp_path / "frames", 5))
    assert len(opened) == 1


def test_survey_that_is_stopped_keeps_what_it_did(task: Callable[..., Task], tmp_path: Path) -> None:
    frames, made = archive(tmp_path / "frames", 6), task()

    class Killed(BaseException):
        pass

    def stop(counts: Counts, row: Row | None) -> None:
        if counts.done == 3:
            raise Killed

    with pytest.raises(Killed):
        run(made, frames, report=stop)
    assert len(rows(made)) == 3
    (Path(made.out) / "manifest.parquet").unlink()  # as if it had been killed before the first write
    counts, _ = run(made, frames)
    assert counts == Counts(6, 3, 3, 0) and all(row.status == "done" for row in rows(made).values())
    assert len(rows(made)) == 6


def test_manifest_is_written_meanwhile(
    task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SAVE_S", 0)
    made, lengths = task(), []
    run(made, archive(tmp_path / "frames", 3), report=lambda counts, row: lengths.append(len(rows(made))))
    assert lengths == [0, 0, 1, 2]


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """small_files(bytes): let the system refuse to write larger files, until the test ends."""
    resource: Any = pytest.importorskip("resource", reason="Windows has no limit of a file's size")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("projection", [None, INDEX])
def test_result_that_cannot_be_written_leaves_nothing(
    task: Callable[..., Task], tmp_path: Path, small_files: Callable[[int], None], projection: Projection | None
) -> None:
    frames, made = archive(tmp_path / "frames", 1, 16), task(projection=projection)
    np.save(frames / "large.npy", pixels(192, 192))
    small_files(120_000)
    counts, failed = run(made, frames)
    assert counts == Counts(2, 0, 1, 1)
    assert failed[0].frame == "large.npy" and "cannot be written" in failed[0].reason
    assert not [path for path in Path(made.out).iterdir() if path.name.startswith((".ccnet-", "large"))]


class _Usage(NamedTuple):
    free: int


def test_full_disk_ends_the_survey_and_the_next_run_goes_on(
    task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, made = archive(tmp_path / "frames", 5), task(projection=None)
    with monkeypatch.context() as patch:
        patch.setattr(
            shutil,
            "disk_usage",
            lambda path: _Usage(4 * 31 * 256 - 1 if len(list(Path(made.out).glob("*.hdr"))) == 2 else 1 << 40),
        )
        refusal(lambda: run(made, frames), "the disk is full", "3 frames are left", "run again")
    assert [row.status for row in rows(made).values()] == ["done", "done", "failed"]
    counts, failed = run(made, frames)
    assert counts == Counts(5, 2, 3, 0) and not failed


def test_another_survey_in_the_folder_is_refused(task: Callable[..., Task], tmp_path: Path) -> None:
    frames, made = archive(tmp_path / "frames", 1), task()
    run(made, frames)
    refusal(lambda: run_survey(made, find_frames([str(frames)]), wanted="cubes"), "result is 'test'", "another --out")
    for name, value in {"backend": "onnxruntime", "precision": "fp32"}.items():
        other = replace(made, engine=replace(made.engine, **{name: value}))
        refusal(lambda: run(other, frames), f"{name} is", repr(value), "another --out")  # noqa: B023 - called here
    (Path(made.out) / "manifest.parquet").write_bytes(b"damaged")
    refusal(lambda: run(made, frames), "manifest.parquet", "damaged")


def test_second_survey_in_the_folder_is_refused_while_the_first_runs(task: Callable[..., Task], tmp_path: Path) -> None:
    frames, made = archive(tmp_path / "frames", 1), task()

    def report(counts: Counts, row: Row | None) -> None:
        refusal(lambda: run(made, frames), "another survey runs", "another --out")

    assert run(made, frames, report=report)[0] == Counts(1, 0, 1, 0)
    assert run(made, frames)[0] == Counts(1, 1, 0, 0)


def test_only_partial_files_of_surveys_are_removed(task: Callable[..., Task], tmp_path: Path) -> None:
    made, out = task(), tmp_path / "out"
    (out / ".ccnet-0123456789ab").mkdir(parents=True)
    (out / ".ccnet-notes").touch()
    (out / ".ccnet-0123456789ac.partial").touch()
    run(made, archive(tmp_path / "frames", 1))
    left = {path.name for path in out.iterdir() if path.name.startswith(".ccnet-")}
    assert left == {".ccnet-0123456789ab", ".ccnet-notes"}


def test_name_that_is_too_long_fails_alone(task: Callable[..., Task], tmp_path: Path) -> None:
    frames, made = archive(tmp_path / "frames", 1), task()
    long = f"{'x' * 250}.npy"
    np.save(frames / long, pixels(16, 16))  # its result's name is longer than 255 bytes
    (frames / "list.csv").write_text(f"path\n0000.npy\n{long}\n{'y' * 300}/z.npy\n")
    counts, failed = run(made, frames / "list.csv")
    assert counts == Counts(3, 0, 1, 2)
    assert all("too long" in row.reason for row in failed)


@pytest.mark.parametrize("projection", [None, INDEX])
def test_name_that_is_no_text_is_a_frame_like_others(
    task: Callable[..., Task], tmp_path: Path, projection: Projection | None
) -> None:
    frames, made = archive(tmp_path / "frames", 1), task(projection=projection)
    try:
        (frames / "0000.npy").rename(frames / os.fsdecode(b"field\xe9.npy"))
    except OSError:
        pytest.skip("this disk has UTF-8 names alone")
    counts, failed = run(made, frames)
    assert counts == Counts(1, 0, 1, 0) and not failed
    before = rows(made)
    assert list(before) == [r"field\udce9.npy"] and before[r"field\udce9.npy"].sha256
    assert run(made, frames)[0] == Counts(1, 1, 0, 0)
    assert rows(made) == before


def test_artifacts_that_cannot_be_opened_end_the_survey(task: Callable[..., Task], tmp_path: Path) -> None:
    engine = worker.Engine(artifacts=str(tmp_path / "gone"))
    made = Task(engine=engine, out=str(tmp_path / "out"), projection=INDEX)
    with pytest.raises(CCNetError, match="gone"):
        run(made, archive(tmp_path / "frames", 1))
