"""Cubes in every format read back exactly; paths that cannot be written are refused."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime.io import files
from ccnet.runtime.io.cubes import open_cube, read_cube
from ccnet.runtime.io.frames import read_frame

from .cube_files import FORMATS, cube_of, every_format, names, refusal, save


@given(st.data(), st.sampled_from(FORMATS), st.integers(1, 90), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_cube_written_in_any_strips_reads_back(data: st.DataObject, suffix: str, height: int, width: int) -> None:
    cuts = data.draw(st.sets(st.integers(1, height - 1), max_size=8)) if height > 1 else set[int]()
    edges = [0, *sorted(cuts), height]
    strips = data.draw(st.permutations(list(pairwise(edges))))
    cube = cube_of(height, width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"cube{suffix}"
        with open_cube(path, height, width) as writer:
            for top, bottom in strips:
                writer.write(top, cube[:, top:bottom])  # not contiguous
        result = read_cube(path)
        assert not [name for name in names(Path(folder)) if "partial" in name]
    assert result.dtype == np.float32
    assert type(result) is np.ndarray
    assert result.flags.c_contiguous
    assert result.flags.writeable
    np.testing.assert_array_equal(result, cube)


@given(st.dictionaries(st.text(), st.text()))
@settings(max_examples=30, deadline=None)
def test_arbitrary_metadata_keeps_the_file_readable(metadata: dict[str, str]) -> None:
    cube = cube_of(2, 3)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in FORMATS:
            path = save(Path(folder) / f"cube{suffix}", cube, **metadata)
            np.testing.assert_array_equal(read_cube(path), cube)
        image = pytest.importorskip("spectral.io.envi").open(str(Path(folder) / "cube.hdr"))
        assert image.metadata["samples"] == "3"
        assert len(image.metadata) <= 16 + len(metadata)


@every_format
def test_suffix_in_capitals_is_accepted(tmp_path: Path, suffix: str) -> None:
    cube = cube_of(3, 3)
    np.testing.assert_array_equal(read_cube(save(tmp_path / f"C{suffix.upper()}", cube)), cube)


def test_path_may_be_a_string(tmp_path: Path) -> None:
    path = f"{tmp_path}/cube.npy"
    with open_cube(path, 20, 24) as writer:
        writer.write(0, cube_of())
    assert np.array_equal(read_cube(path), cube_of())
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(f"{tmp_path}/frame.png")
    assert read_frame(f"{tmp_path}/frame.png").shape == (16, 20, 3)


@every_format
def test_same_cube_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second = (save(tmp_path / f"{name}{suffix}", cube_of(), note="x") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@every_format
def test_older_cube_is_replaced(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"c{suffix}", cube_of(30, 30))
    np.testing.assert_array_equal(read_cube(save(path, cube_of(5, 7, 1))), cube_of(5, 7, 1))


@pytest.mark.parametrize("name", ["c.jp2", "c", "c.img", "c.hdr.gz", ".npy"])
def test_unknown_suffix_lists_the_known_suffixes(tmp_path: Path, name: str) -> None:
    for use in (lambda path: open_cube(path, 20, 24), read_cube):
        with refusal(tmp_path / name, "unknown", ".hdr, .mat, .npy, .tif, .tiff, .nc"):
            use(tmp_path / name)


@every_format
def test_unwritable_paths_are_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    path, long = tmp_path / f"c{suffix}", tmp_path / f"{'x' * 300}{suffix}"
    path.touch()
    with refusal(folder, "is a directory"):
        open_cube(folder, 20, 24)
    with refusal(path, "cannot be made"):
        open_cube(path / "c.npy", 20, 24)
    path.unlink()
    with refusal(long, "cannot be written"):
        save(long, cube_of())
    for impossible in (tmp_path / f"\ud800{suffix}", tmp_path / f"\0{suffix}"):
        with refusal(impossible, "no file can have that name"):
            open_cube(impossible, 20, 24)
    with pytest.raises(ValueError, match="0×20"):
        open_cube(path, 20, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * 31 * 20 * 24 - 1))
    with refusal(path, "GB", "room"):
        open_cube(path, 20, 24)
    assert names(tmp_path) == [folder.name]


def test_folder_named_like_the_image_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.img").mkdir()
    with refusal(tmp_path / "c.img", "is a directory"):
        open_cube(tmp_path / "c.hdr", 20, 24)


@every_format
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_read_only_folder_is_refused(tmp_path: Path, suffix: str) -> None:
    tmp_path.chmod(0o500)
    with refusal(tmp_path / f"c{suffix}", "cannot be written", "Permission denied"):
        save(tmp_path / f"c{suffix}", cube_of())


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    files.optional_module.cache_clear()
    with pytest.raises(CCNetError, match=r'pip install "\.\[cli\]"'):
        save(tmp_path / "c.mat", cube_of())
    files.optional_module.cache_clear()
    assert not names(tmp_path)


def test_writer_keeps_no_file_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc")
    before = len(list(folder.iterdir()))
    for suffix in FORMATS:
        save(tmp_path / f"c{suffix}", cube_of())
        read_cube(tmp_path / f"c{suffix}")
        with pytest.raises(io.UnsupportedOperation), open_cube(tmp_path / f"d{suffix}", 9, 9):
            raise io.UnsupportedOperation
    assert len(list(folder.iterdir())) == before
