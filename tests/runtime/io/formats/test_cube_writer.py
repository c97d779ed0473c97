"""A cube is written part by part, and appears complete or not at all."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.cubes import open_cube, read_cube
from tests.runtime.io.cube_files import cube_of, every_format, names, refusal, save


@every_format
def test_writing_holds_only_a_strip_in_memory(tmp_path: Path, suffix: str) -> None:
    height, strip = 1024, cube_of(16, 256)
    save(tmp_path / f"first{suffix}", cube_of())  # the format's library is imported
    tracemalloc.start()
    try:
        with open_cube(tmp_path / f"c{suffix}", height, 256) as writer:
            for top in range(0, height, 16):
                writer.write(top, strip)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6  # the cube has 32.5 MB


class Interrupted(BaseException):
    pass


@every_format
@pytest.mark.parametrize("error", [RuntimeError, OSError, Interrupted])
def test_failure_leaves_nothing_behind(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    with pytest.raises(error), open_cube(tmp_path / f"c{suffix}", 20, 24) as writer:
        writer.write(0, cube_of())
        raise error
    assert not names(tmp_path)


@every_format
def test_failure_leaves_an_older_cube_alone(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"c{suffix}", cube_of())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError), open_cube(path, 9, 9) as writer:
        writer.write(0, cube_of(9, 9, 1))
        raise ZeroDivisionError
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@every_format
@pytest.mark.parametrize("rows", [[], [(0, 10)], [(0, 9), (10, 20)], [(0, 19), (0, 19)]])
def test_missing_rows_are_refused(tmp_path: Path, suffix: str, rows: list[tuple[int, int]]) -> None:
    path = tmp_path / f"c{suffix}"
    with refusal(path.with_suffix(".img") if suffix == ".hdr" else path, "never written"), open_cube(path, 20, 24) as w:
        for top, bottom in rows:
            w.write(top, cube_of()[:, top:bottom])
    assert not names(tmp_path)


@every_format
def test_parts_of_any_size_make_the_cube(tmp_path: Path, suffix: str) -> None:
    """Rows come in any order, and may come again; the parts of a row come from left to right."""
    path, cube = tmp_path / f"c{suffix}", cube_of(150, 140)
    with open_cube(path, 150, 140) as writer:
        for top, bottom, edges in ((90, 150, (0, 140)), (0, 90, (0, 1, 70, 140)), (80, 95, (0, 13, 140))):
            for left, right in pairwise(edges):
                writer.write(top, cube[:, top:bottom, left:right], left)
    np.testing.assert_array_equal(read_cube(path), cube)


@every_format
def test_missing_columns_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    with (
        refusal(path.with_suffix(".img") if suffix == ".hdr" else path, "3 of the cube's 20 rows were never written"),
        open_cube(path, 20, 24) as writer,
    ):
        writer.write(0, cube_of()[:, :17])
        writer.write(17, cube_of()[:, 17:, :23])
    assert not names(tmp_path)


@every_format
def test_nothing_appears_before_the_end(tmp_path: Path, suffix: str) -> None:
    with open_cube(tmp_path / f"c{suffix}", 20, 24) as writer:
        writer.write(0, cube_of())
        assert all(name.startswith(".ccnet-") for name in names(tmp_path))
    assert names(tmp_path) == (["c.hdr", "c.img"] if suffix == ".hdr" else [f"c{suffix}"])


@every_format
def test_two_writers_of_one_name_do_not_mix(tmp_path: Path, suffix: str) -> None:
    path, cube = tmp_path / f"c{suffix}", cube_of()
    with open_cube(path, 20, 24) as first:
        first.write(0, cube[:, :7])
        save(path, cube_of(20, 24, 1))
        first.write(7, cube[:, 7:])
    np.testing.assert_array_equal(read_cube(path), cube)


PARTS: dict[str, tuple[Any, ...]] = {
    "float64": (0, cube_of().astype(float)),
    "uint8": (0, np.zeros((31, 20, 24), np.uint8)),
    "30 bands": (0, cube_of()[:30]),
    "bands last": (0, cube_of().transpose(1, 2, 0)),
    "wide": (0, np.zeros((31, 20, 25), np.float32)),
    "no columns": (0, cube_of()[:, :, :0]),
    "flat": (0, cube_of()[0]),
    "no rows": (0, cube_of()[:, :0]),
    "below the cube": (1, cube_of()),
    "above the cube": (-1, cube_of()),
    "batch": (0, cube_of()[None]),
    "right of the cube": (0, cube_of(), 1),
    "left of the cube": (0, cube_of(), -1),
    "before the columns on its left": (0, cube_of()[:, :, :5], 3),
}


@every_format
@pytest.mark.parametrize("name", PARTS)
def test_invalid_part_is_a_value_error(tmp_path: Path, suffix: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"part is .* expected"), open_cube(tmp_path / f"c{suffix}", 20, 24) as writer:
        writer.write(*PARTS[name])
    assert not names(tmp_path)


@every_format
@pytest.mark.parametrize("room", [0, 100, 700, 3000, 20_000, 4 * 31 * 20 * 24 - 1])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, suffix: str, room: int) -> None:
    """The limit on a file's size stands in for the disk; HDF5 by itself crashes the process here."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    path, before = tmp_path / f"c{suffix}", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(CCNetError, match="cannot be written") as caught:
            save(path, cube_of())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert not names(tmp_path)
    save(path, cube_of())
