"""The frames of folders, patterns, lists and addresses, and the names of their results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.runtime.apps.survey.sources import find_frames, read_archive_frame
from tests.runtime.conftest import pixels, refusal


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    """Two folders of frames, a file that is none, and two frames that share a stem."""
    for name in ("flights/a/0.npy", "flights/a/1.npy", "flights/b/0.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / name, pixels(16, 16))
    (tmp_path / "flights/notes.txt").touch()
    (tmp_path / "flights/b/0.png").touch()
    return tmp_path / "flights"


def names(*sources: object) -> list[str]:
    return [frame.name for frame in find_frames(map(str, sources))]


def test_folder_gives_the_frames_below_it(flights: Path) -> None:
    assert names(flights) == ["a/0.npy", "a/1.npy", "b/0.npy", "b/0.png"]
    assert [Path(frame.location) for frame in find_frames([str(flights / "a")])] == [
        flights / "a/0.npy",
        flights / "a/1.npy",
    ]


def test_names_do_not_depend_on_other_frames(flights: Path) -> None:
    """A second run after new frames came must find the results of the first."""
    (flights / "b/0.png").unlink()
    before = names(flights)
    (flights / "b/0.png").touch()
    assert set(before) < set(names(flights))


def test_pattern_and_file(flights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(flights / "*/0.npy") == ["a/0.npy", "b/0.npy"]
    assert names(flights / "a/1.npy") == ["1.npy"]
    monkeypatch.chdir(flights)
    assert names("**/1.npy") == ["a/1.npy"]


def test_lists_are_relative_to_their_folder(flights: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    other = tmp_path / "other.npy"
    (flights / "list.csv").write_text(f"id,path\n1,a/0.npy\n2,{other}\n3,../other.npy\n", encoding="utf-8-sig")
    parquet.write_table(arrow.table({"path": ["b/0.npy", "file:///data/x.png"]}), flights / "list.parquet")
    assert names(flights / "list.csv") == ["a/0.npy", str(other).lstrip("/")]
    assert names(flights / "list.parquet") == ["b/0.npy", "data/x.png"]


def test_names_of_a_list_do_not_depend_on_links(flights: Path, tmp_path: Path) -> None:
    (flights / "list.csv").write_text("path\na/0.npy\n")
    (tmp_path / "linked").symlink_to(flights, target_is_directory=True)
    assert names(tmp_path / "linked/list.csv") == ["a/0.npy"]


@pytest.mark.parametrize(("rows", "words"), [("1,a/0.npy\n2\n", "row 2 is None"), ("1,\n", "row 1 is ''")])
def test_row_without_a_path_is_refused(flights: Path, rows: str, words: str) -> None:
    (flights / "list.csv").write_text(f"id,path\n{rows}")
    refusal(lambda: find_frames([str(flights / "list.csv")]), "list.csv", words, "expected a path")


def test_row_that_is_no_path_is_refused(flights: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for entry in ("a\0b.npy", None):
        parquet.write_table(arrow.table({"path": ["a/0.npy", entry]}), flights / "list.parquet")
        refusal(lambda: find_frames([str(flights / "list.parquet")]), "list.parquet", "row 2 is", "expected a path")


def test_addresses_of_fsspec_are_listed_and_read(flights: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason='fsspec is not installed: pip install ".[scale]"')
    files = fsspec.filesystem("memory")
    files.put(str(flights), "/bucket/flights", recursive=True)
    try:
        assert names("memory://bucket/flights/a") == ["0.npy", "1.npy"]
        assert names("memory://bucket/flights/*/0.npy") == ["a/0.npy", "b/0.npy"]
        (frame,) = find_frames(["memory://bucket/flights/a/1.npy"])
        assert frame.name == "1.npy"
        assert np.array_equal(read_archive_frame(frame.location, as_stored=False)[0], pixels(16, 16))
        refusal(lambda: read_archive_frame("memory://bucket/flights/b/0.png", as_stored=False), "memory://bucket")
        refusal(lambda: read_archive_frame("memory://bucket/gone.png", as_stored=False), "memory://bucket/gone.png")
    finally:
        files.rm("/bucket", recursive=True)


def test_wrong_sources_are_refused(flights: Path, tmp_path: Path) -> None:
    refusal(lambda: find_frames([str(tmp_path / "gone")]), "gone: no such file or folder")
    refusal(lambda: find_frames([str(flights / "*.jpg")]), "*.jpg: holds no frame")
    refusal(lambda: find_frames([str(flights / "a"), str(flights / "b/0.npy")]), "0.npy: two frames have this name")
    (flights / "list.csv").write_text("file\nx.png\n")
    refusal(lambda: find_frames([str(flights / "list.csv")]), "list.csv", "the column 'path'")
