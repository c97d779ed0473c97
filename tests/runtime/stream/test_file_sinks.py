"""Frames with names that a folder or a Zarr group has already: the same frame's cube is kept, another gets its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ccnet.contract import CCNetError
from ccnet.runtime import read_cube
from ccnet.runtime.stream.sinks import CubeExistsError, Sink, open_sink


def put(sink: Sink, name: str | None, value: float = 0, source: str = "flight") -> None:
    with sink.cube(name, 16, 16, {"source": source}) as writer:
        writer.write(0, np.full((31, 16, 16), value, np.float32))


FORMATS = ["hdr", "mat", "tif", "nc"]
"""Formats whose metadata name the source."""


def test_folders_that_the_sink_made_and_left_empty_are_removed(tmp_path: Path) -> None:
    open_sink(str(tmp_path / "new" / "cubes")).close()
    assert not (tmp_path / "new").exists()

    (tmp_path / "mine").mkdir()
    open_sink(str(tmp_path / "mine")).close()
    (tmp_path / "days").mkdir()
    open_sink(str(tmp_path / "days" / "monday")).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["days", "mine"]


def test_group_begins_with_its_first_array(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    open_sink(str(tmp_path / "new" / "cubes.zarr")).close()
    assert list(tmp_path.iterdir()) == []

    sink = open_sink(str(tmp_path / "new" / "cubes.zarr"))
    put(sink, "one")
    sink.close()
    assert {path.name for path in (tmp_path / "new" / "cubes.zarr").iterdir()} == {"zarr.json", "00000000"}

    (tmp_path / "mine.zarr").mkdir()
    open_sink(str(tmp_path / "mine.zarr")).close()
    assert list((tmp_path / "mine.zarr").iterdir()) == []


def test_group_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, zarr_open_group = [], zarr.open_group

    def open_group(path: str, **options: Any) -> Any:
        opened.append(path)
        return zarr_open_group(path, **options)

    monkeypatch.setattr(zarr, "open_group", open_group)
    path = str(tmp_path / "cubes.zarr")
    for _ in ("a new group", "a group with arrays"):
        sink = open_sink(path)
        for _ in range(3):
            put(sink, None)
        sink.close()
    assert opened == [path, path]


def test_folder_with_a_cube_stays_and_another_stream_needs_no_folder(tmp_path: Path) -> None:
    first, second = (open_sink(str(tmp_path / "cubes"), "npy") for _ in range(2))
    first.close()
    put(second, "one")
    second.close()
    first.close()
    assert [path.name for path in (tmp_path / "cubes").iterdir()] == ["one.npy"]


def skip_without_library(format: str) -> None:
    if package := {"tif": "rasterio", "nc": "h5netcdf"}.get(format):
        pytest.importorskip(package)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("flight 1", "flight 1"),
        ("flight 1", "/data/flight 1/"),
        ("flight 1", "flight 1/"),
        ("Füße", "Füße"),
        ("{a}  b", "{a}  b"),
        ("leaf\udce9", "leaf\udce9"),
        (r"C:\up", r"C:\up"),
    ],
)
def test_frame_of_the_same_source_is_there_already(tmp_path: Path, first: str, second: str, format: Any) -> None:
    skip_without_library(format)
    sink = open_sink(str(tmp_path), format)
    put(sink, "one", 1, first)
    with pytest.raises(CubeExistsError, match="exists and is kept"):
        put(sink, "one", 2, second)
    assert {path.stem for path in tmp_path.iterdir()} == {"one"}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("folder", ["frames", "Füße"])
def test_frame_of_another_source_gets_its_own_cube(tmp_path: Path, format: Any, folder: str) -> None:
    """Also of folders of the same name in other places, and again after a restart."""
    skip_without_library(format)
    sources = ["flight 1", "flight 2"]
    for day in ("monday", "tuesday"):
        sources.append(str(tmp_path / day / folder))
        Path(sources[-1]).mkdir(parents=True)
    for again in (False, True):
        sink = open_sink(str(tmp_path / "out"), format)
        for value, source in enumerate(sources):
            if again:
                with pytest.raises(CubeExistsError):
                    put(sink, "one", 9, source)
            else:
                put(sink, "one", value, source)
    names = ["one", "one-flight 2", f"one-{folder}", f"one-{folder}-2"]
    found = {path.stem: float(read_cube(path)[0, 0, 0]) for path in (tmp_path / "out").glob(f"*.{format}")}
    assert found == dict(zip(names, range(4), strict=True))


def test_cube_without_metadata_is_there_already_whatever_its_source(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path), "npy")
    put(sink, "one", 1, "flight 1")
    with pytest.raises(CubeExistsError):
        put(sink, "one", 2, "flight 2")


@pytest.mark.parametrize("format", FORMATS[1:])
def test_file_of_somebody_else_is_kept(tmp_path: Path, format: Any) -> None:
    skip_without_library(format)
    path = tmp_path / f"one.{format}"
    path.write_bytes(b"mine")
    put(open_sink(str(tmp_path), format), "one", 1)
    assert path.read_bytes() == b"mine"
    assert read_cube(tmp_path / f"one-flight.{format}").max() == 1


def test_header_of_somebody_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "one.hdr").write_text("ENVI\n")
    (tmp_path / "one.img").write_text("mine")
    put(open_sink(str(tmp_path)), "one")
    assert (tmp_path / "one.img").read_text() == "mine"
    assert read_cube(tmp_path / "one-flight.hdr").shape == (31, 16, 16)


def test_streams_of_two_sources_at_once_leave_the_cubes_of_both(tmp_path: Path) -> None:
    first, second = (open_sink(str(tmp_path)) for _ in range(2))
    with first.cube("one", 16, 16, {"source": "a"}) as writer:
        put(second, "one", 2, "b")
        writer.write(0, np.ones((31, 16, 16), np.float32))
    assert {path.stem: read_cube(path).max() for path in tmp_path.glob("*.hdr")} == {"one": 2, "one-a": 1}


def test_streams_of_one_source_at_once_say_who_wrote_the_cube(tmp_path: Path) -> None:
    first, second = (open_sink(str(tmp_path)) for _ in range(2))
    with pytest.raises(CCNetError) as caught, first.cube("one", 16, 16, {"source": "a"}) as writer:
        put(second, "one", 2, "a")
        writer.write(0, np.ones((31, 16, 16), np.float32))
    assert str(caught.value) == f"{tmp_path}/one.hdr: another process wrote it meanwhile, its file is kept"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("version", [2, 3])
def test_frames_that_a_group_has_are_there_already(tmp_path: Path, version: Any) -> None:
    path = tmp_path / "cubes.zarr"
    zarr.open_group(str(path), mode="w", zarr_format=version)
    sink = open_sink(str(path))
    for name in ("a", "b", "leaf\udce9", None):
        put(sink, name)
    again = open_sink(str(path))
    for name in ("a", "b", "leaf\udce9"):
        with pytest.raises(CubeExistsError, match="keeps it"):
            put(again, name)
    put(again, "a", source="another flight")
    put(again, "c")
    put(again, None)
    assert len(list(path.glob("0*"))) == 7


def test_group_tells_folders_of_the_same_name_apart(tmp_path: Path) -> None:
    sources = [tmp_path / day / "leaf\udce9" for day in ("monday", "tuesday")]
    for source in sources:
        source.mkdir(parents=True)
        put(open_sink(str(tmp_path / "cubes.zarr")), "a", source=str(source))
    for source in sources:
        with pytest.raises(CubeExistsError):
            put(open_sink(str(tmp_path / "cubes.zarr")), "a", source=str(source))


def test_damaged_attributes_in_a_group_hinder_no_stream(tmp_path: Path) -> None:
    path = tmp_path / "cubes.zarr"
    put(open_sink(str(path)), "a")
    for name, text in (("00000001", "{"), ("00000002", "[]"), ("00000003", '{"attributes": 3}')):
        (path / name).mkdir()
        (path / name / "zarr.json").write_text(text)
    put(open_sink(str(path)), "b")
    assert (path / "00000004").is_dir()
