"""Cubes: what is written streams, reads back exactly, and is there whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io import files
from ccnet.runtime.io.cubes import open_cube, read_cube
from ccnet.runtime.io.frames import read_frame

h5py = pytest.importorskip("h5py")
Array = npt.NDArray[np.float32]
FORMATS = (".hdr", ".mat", ".npy")
every_format = pytest.mark.parametrize("suffix", FORMATS)


def cube_of(height: int = 20, width: int = 24, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((31, height, width), np.float32)


def save(path: Path, cube: Array, /, **metadata: str) -> Path:
    with open_cube(path, cube.shape[1], cube.shape[2], metadata) as writer:
        writer.write(0, cube)
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@contextmanager
def refusal(path: Path, *words: str) -> Iterator[None]:
    """The block fails with one line that names the file and says these words; nothing else comes out."""
    with warnings.catch_warnings(), pytest.raises(CCNetError) as caught:
        warnings.simplefilter("error")
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    for word in (str(path), *words):
        assert word in message


# --- what was written reads back


@given(st.data(), st.sampled_from(FORMATS), st.integers(1, 90), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_any_strips_in_any_order_read_back(data: st.DataObject, suffix: str, height: int, width: int) -> None:
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
def test_no_metadata_breaks_a_file(metadata: dict[str, str]) -> None:
    cube = cube_of(2, 3)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in FORMATS:
            path = save(Path(folder) / f"cube{suffix}", cube, **metadata)
            np.testing.assert_array_equal(read_cube(path), cube)
        image = pytest.importorskip("spectral.io.envi").open(str(Path(folder) / "cube.hdr"))
        assert image.metadata["samples"] == "3"
        assert len(image.metadata) <= 15 + len(metadata)


def test_spectral_reads_the_envi_file(tmp_path: Path) -> None:
    cube = cube_of()
    path = save(tmp_path / "c.hdr", cube, Model="v1 {x}\nsamples = 9", weights="ab12")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = pytest.importorskip("spectral.io.envi").open(str(path))
    np.testing.assert_array_equal(np.asarray(image.load()).transpose(2, 0, 1), cube)
    assert image.bands.centers == list(BANDS_NM)
    assert image.bands.band_unit == "Nanometers"
    assert image.metadata["band names"][0] == "400 nm"
    assert "reflectance" in image.metadata["description"]
    assert image.metadata["ccnet model"] == "v1 x samples = 9"
    assert image.metadata["ccnet weights"] == "ab12"


def test_an_envi_header_of_spectral_is_read(tmp_path: Path) -> None:
    cube, path, envi = cube_of(), tmp_path / "c.hdr", pytest.importorskip("spectral.io.envi")
    envi.save_image(str(path), cube.transpose(1, 2, 0), interleave="bsq", metadata={"wavelength": list(BANDS_NM)})
    np.testing.assert_array_equal(read_cube(path), cube)


def test_the_mat_file_is_as_ntire_has_it(tmp_path: Path) -> None:
    cube = cube_of(20, 24)
    path = save(tmp_path / "c.mat", cube, model="v1")
    head = path.read_bytes()[:512]
    assert head.startswith(b"MATLAB 7.3 MAT-file")
    assert head[116:128] == bytes(8) + b"\x00\x02IM"  # no subsystem, version 2.0, little-endian
    assert head[128:] == bytes(384)
    with h5py.File(path) as file:
        assert set(file) == {"cube", "bands", "norm_factor"}
        assert file["cube"].shape == (31, 24, 20)
        np.testing.assert_array_equal(np.transpose(file["cube"], (0, 2, 1)), cube)
        assert file["cube"].attrs["MATLAB_class"] == b"single"
        assert file["cube"].attrs["ccnet model"] == "v1"
        np.testing.assert_array_equal(np.ravel(file["bands"]), BANDS_NM)
        assert file["bands"].attrs["MATLAB_class"] == b"double"
        assert file["norm_factor"][()].item() == 1.0


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8"])
def test_other_programs_mat_files_are_read(tmp_path: Path, dtype: str, options: dict[str, str]) -> None:
    cube = np.zeros((31, 64, 64), np.float32)
    cube[:] = np.linspace(0, 1, 31, dtype=np.float32)[:, None, None]  # packs very well
    write_mat(tmp_path / "c.mat", cube.astype(dtype), np.array(BANDS_NM)[None], **options)
    np.testing.assert_array_equal(read_cube(tmp_path / "c.mat"), cube)


def write_mat(path: Path, cube: Any, bands: Any, **options: Any) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("cube", data=cube.transpose(0, 2, 1), **options)
        file["bands"] = bands


@every_format
def test_suffix_in_capitals(tmp_path: Path, suffix: str) -> None:
    cube = cube_of(3, 3)
    np.testing.assert_array_equal(read_cube(save(tmp_path / f"C{suffix.upper()}", cube)), cube)


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    path = f"{tmp_path}/cube.npy"
    with open_cube(path, 20, 24) as writer:
        writer.write(0, cube_of())
    assert np.array_equal(read_cube(path), cube_of())
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(f"{tmp_path}/frame.png")
    assert read_frame(f"{tmp_path}/frame.png").shape == (16, 20, 3)


@every_format
def test_same_cube_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second = (save(tmp_path / f"{name}{suffix}", cube_of(), note="x") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@every_format
def test_an_older_cube_is_replaced(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"c{suffix}", cube_of(30, 30))
    np.testing.assert_array_equal(read_cube(save(path, cube_of(5, 7, 1))), cube_of(5, 7, 1))


@every_format
def test_writing_streams(tmp_path: Path, suffix: str) -> None:
    height, strip = 1024, cube_of(16, 256)
    tracemalloc.start()
    try:
        with open_cube(tmp_path / f"c{suffix}", height, 256) as writer:
            for top in range(0, height, 16):
                writer.write(top, strip)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6  # of a cube of 32.5 MB


# --- whole, or not at all


class Interrupted(BaseException):
    pass


@every_format
@pytest.mark.parametrize("error", [RuntimeError, OSError, Interrupted])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    with pytest.raises(error), open_cube(tmp_path / f"c{suffix}", 20, 24) as writer:
        writer.write(0, cube_of())
        raise error
    assert not names(tmp_path)


@every_format
def test_a_failure_leaves_an_older_cube_alone(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"c{suffix}", cube_of())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError), open_cube(path, 9, 9) as writer:
        writer.write(0, cube_of(9, 9, 1))
        raise ZeroDivisionError
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@every_format
@pytest.mark.parametrize("rows", [[], [(0, 10)], [(0, 9), (10, 20)], [(0, 19), (0, 19)]])
def test_a_missing_row_is_an_error(tmp_path: Path, suffix: str, rows: list[tuple[int, int]]) -> None:
    path = tmp_path / f"c{suffix}"
    with refusal(path.with_suffix(".img") if suffix == ".hdr" else path, "never written"), open_cube(path, 20, 24) as w:
        for top, bottom in rows:
            w.write(top, cube_of()[:, top:bottom])
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


STRIPS: dict[str, tuple[int, Any]] = {
    "float64": (0, cube_of().astype(float)),
    "uint8": (0, np.zeros((31, 20, 24), np.uint8)),
    "30 bands": (0, cube_of()[:30]),
    "bands last": (0, cube_of().transpose(1, 2, 0)),
    "narrow": (0, cube_of()[:, :, :23]),
    "flat": (0, cube_of()[0]),
    "no rows": (0, cube_of()[:, :0]),
    "below the cube": (1, cube_of()),
    "above the cube": (-1, cube_of()),
    "batch": (0, cube_of()[None]),
}


@every_format
@pytest.mark.parametrize("name", STRIPS)
def test_a_wrong_strip_is_a_value_error(tmp_path: Path, suffix: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"strip is .* expected"), open_cube(tmp_path / f"c{suffix}", 20, 24) as writer:
        writer.write(*STRIPS[name])
    assert not names(tmp_path)


# --- targets that cannot be


@pytest.mark.parametrize("name", ["c.tif", "c", "c.img", "c.hdr.gz", ".npy"])
def test_unknown_suffix_lists_the_known(tmp_path: Path, name: str) -> None:
    for use in (lambda path: open_cube(path, 20, 24), read_cube):
        with refusal(tmp_path / name, "unknown", ".hdr, .mat, .npy"):
            use(tmp_path / name)


@every_format
def test_targets_that_cannot_be(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    path, lost, long = tmp_path / f"c{suffix}", tmp_path / "gone" / f"c{suffix}", tmp_path / f"{'x' * 300}{suffix}"
    with refusal(folder, "is a directory"):
        open_cube(folder, 20, 24)
    with refusal(lost, "does not exist"):
        open_cube(lost, 20, 24)
    with refusal(path / "c.npy", "does not exist"):
        open_cube(path / "c.npy", 20, 24)
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


def test_a_folder_named_like_the_image(tmp_path: Path) -> None:
    (tmp_path / "c.img").mkdir()
    with refusal(tmp_path / "c.img", "is a directory"):
        open_cube(tmp_path / "c.hdr", 20, 24)


@every_format
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path, suffix: str) -> None:
    tmp_path.chmod(0o500)
    with refusal(tmp_path / f"c{suffix}", "cannot be written", "Permission denied"):
        save(tmp_path / f"c{suffix}", cube_of())


@every_format
@pytest.mark.parametrize("room", [0, 100, 700, 3000, 20_000, 4 * 31 * 20 * 24 - 1])
def test_a_disk_that_fills_up(tmp_path: Path, suffix: str, room: int) -> None:
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


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    files.optional_module.cache_clear()
    with pytest.raises(CCNetError, match=r"ccnet-hsi\[cli\]"):
        save(tmp_path / "c.mat", cube_of())
    files.optional_module.cache_clear()
    assert not names(tmp_path)


# --- files that are no cubes


def npy(array: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, **options)


def mat(cube: Any, bands: Any = BANDS_NM) -> Callable[[Path], None]:
    return lambda path: write_mat(path, cube, np.asarray(bands)[None])


def header(old: str, new: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        text = save(path, cube_of()).read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return make


def content(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def hole(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (31, 10**6, 10**6), "f4", chunks=(1, 64, 64))
        file["bands"] = BANDS_NM


def groups(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("cube")
        file["bands"] = BANDS_NM


def old_mat(path: Path) -> None:
    pytest.importorskip("scipy.io").savemat(path, {"cube": cube_of()})


def with_value(value: float) -> Array:
    cube = cube_of()
    cube[30, 3, 4] = value
    return cube


REVERSED = ", ".join(map(str, BANDS_NM[::-1]))
ASCENDING = ", ".join(map(str, BANDS_NM))
BAD: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "empty npy": (".npy", content(b""), ("empty",)),
    "text npy": (".npy", content(b"hello\nworld"), ("damaged",)),
    "30 bands npy": (".npy", npy(cube_of()[:30]), ("30 bands",)),
    "bands last npy": (".npy", npy(cube_of().transpose(1, 2, 0)), ("20 bands", "bands first")),
    "uint8 npy": (".npy", npy(np.zeros((31, 9, 9), "u1")), ("not a cube", "uint8")),
    "flat npy": (".npy", npy(cube_of()[0]), ("not a cube",)),
    "no pixels npy": (".npy", npy(cube_of()[:, :0]), ()),
    "objects npy": (".npy", npy(np.array([[{}]], object), allow_pickle=True), ("object",)),
    "nan npy": (".npy", npy(with_value(np.nan)), ("NaN",)),
    "infinite npy": (".npy", npy(with_value(-np.inf)), ("infinite",)),
    "past float32 npy": (".npy", npy(cube_of().astype(float) * 1e300), ("infinite",)),
    "empty mat": (".mat", content(b""), ("empty",)),
    "text mat": (".mat", content(b"MATLAB 7.3 MAT-file".ljust(2000)), ("damaged",)),
    "old mat": (".mat", old_mat, ("damaged",)),
    "30 bands mat": (".mat", mat(cube_of()[:30]), ("30 bands",)),
    "bands last mat": (".mat", mat(cube_of().transpose(1, 2, 0)), ("bands first",)),
    "descending mat": (".mat", mat(cube_of(), BANDS_NM[::-1]), ("ascending",)),
    "other bands mat": (".mat", mat(cube_of(), range(410, 711, 10)), ("400, 410",)),
    "30 wavelengths mat": (".mat", mat(cube_of(), BANDS_NM[:30]), ("400, 410",)),
    "uint16 mat": (".mat", mat(np.zeros((31, 9, 9), "u2")), ("not a cube", "uint16")),
    "nan mat": (".mat", mat(with_value(np.nan)), ("NaN",)),
    "other names mat": (".mat", lambda path: h5py.File(path, "w").close(), ("'cube'", "'bands'")),
    "group mat": (".mat", groups, ("expected a cube",)),
    "hole mat": (".mat", hole, ("never written",)),
    "empty hdr": (".hdr", content(b""), ("empty",)),
    "radiance hdr": (".hdr", content(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n"), ("no ENVI header",)),
    "binary hdr": (".hdr", content(bytes(range(256))), ("no ENVI header",)),
    "30 bands hdr": (".hdr", header("bands = 31", "bands = 30"), ("30 bands",)),
    "no wavelengths hdr": (".hdr", header("wavelength =", "other ="), ("wavelength",)),
    "descending hdr": (".hdr", header(ASCENDING, REVERSED), ("ascending",)),
    "micrometres hdr": (".hdr", header("400, 410, 420", "0.40, 0.41, 0.42"), ("400, 410",)),
    "bil hdr": (".hdr", header("bsq", "bil"), ("interleave", "bil", "bsq")),
    "float64 hdr": (".hdr", header("data type = 4", "data type = 5"), ("data type", "5")),
    "big-endian hdr": (".hdr", header("byte order = 0", "byte order = 1"), ("byte order",)),
    "offset hdr": (".hdr", header("header offset = 0", "header offset = 512"), ("header offset",)),
    "words hdr": (".hdr", header("lines = 20", "lines = many"), ("lines", "many")),
    "negative hdr": (".hdr", header("lines = 20", "lines = -20"), ("not a cube",)),
    "zero hdr": (".hdr", header("lines = 20", "lines = 0"), ("not a cube",)),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_cubes(tmp_path: Path, name: str) -> None:
    suffix, make, words = BAD[name]
    path = tmp_path / f"bad{suffix}"
    make(path)
    with refusal(path, *words):
        read_cube(path)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:100], lambda data: data + b"x"])
def test_an_image_of_another_size_than_its_header(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = save(tmp_path / "c.hdr", cube_of())
    image = tmp_path / "c.img"
    image.write_bytes(change(image.read_bytes()))
    with refusal(image, "truncated"):
        read_cube(path)


def test_an_image_with_nan_or_gone(tmp_path: Path) -> None:
    path, image = save(tmp_path / "c.hdr", cube_of()), tmp_path / "c.img"
    image.write_bytes(with_value(np.nan).tobytes())
    with refusal(path, "NaN"):
        read_cube(path)
    image.write_bytes(b"")
    with refusal(image, "empty"):
        read_cube(path)
    image.unlink()
    with refusal(image, "no such file"):
        read_cube(path)


@every_format
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated(tmp_path: Path, suffix: str, kept: float) -> None:
    path = save(tmp_path / f"c{suffix}", cube_of())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with refusal(path):
        read_cube(path)


@every_format
def test_missing_and_directory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    with refusal(path, "no such file"):
        read_cube(path)
    path.mkdir()
    with refusal(path, "directory"):
        read_cube(path)


@every_format
def test_mutated_bytes_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(11)
    path = save(tmp_path / f"fuzz{suffix}", np.ones((31, 4, 4), np.float32))
    good = path.read_bytes()
    for _ in range(120):
        data = bytearray(good)
        for at in rng.integers(len(data), size=rng.integers(1, 20)):
            data[at] = rng.choice([0, 1, 127, 255, data[at] ^ 1 << rng.integers(8)])
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.integers(4) == 0 else data)
        try:
            cube = read_cube(path)
        except CCNetError as error:
            assert "\n" not in str(error)
            assert str(path.with_suffix("")) in str(error)
        else:
            assert cube.shape[0] == 31
            assert np.isfinite(cube).all()


def test_a_writer_keeps_no_file_open(tmp_path: Path) -> None:
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
