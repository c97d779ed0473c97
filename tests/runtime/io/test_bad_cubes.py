"""Files that are not cubes give a one-line error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.cubes import read_cube

from .cube_files import cube_of, every_format, refusal, save, with_value, write_mat


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


REVERSED = ", ".join(map(str, BANDS_NM[::-1]))
ASCENDING = ", ".join(map(str, BANDS_NM))
BAD: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "empty npy": (".npy", content(b""), ("empty",)),
    "text npy": (".npy", content(b"hello\nworld"), ("damaged",)),
    "30 bands npy": (".npy", npy(cube_of()[:30]), ("not a cube", "(30, 20, 24)", "(31, H, W)")),
    "bands last npy": (".npy", npy(cube_of().transpose(1, 2, 0)), ("not a cube", "(20, 24, 31)", "(31, H, W)")),
    "uint8 npy": (".npy", npy(np.zeros((31, 9, 9), "u1")), ("not a cube", "uint8")),
    "flat npy": (".npy", npy(cube_of()[0]), ("not a cube",)),
    "no pixels npy": (".npy", npy(cube_of()[:, :0]), ()),
    "objects npy": (".npy", npy(np.array([[{}]], object), allow_pickle=True), ("object",)),
    "nan npy": (".npy", npy(with_value(np.nan)), ("NaN",)),
    "infinite npy": (".npy", npy(with_value(-np.inf)), ("infinite",)),
    "past float32 npy": (".npy", npy(cube_of().astype(float) * 1e300), ("infinite",)),
    "empty mat": (".mat", content(b""), ("empty",)),
    "text mat": (".mat", content(b"MATLAB 7.3 MAT-file".ljust(2000)), ("damaged",)),
    "matlab 5 without bands": (".mat", old_mat, ("'cube'", "'bands'")),
    "30 bands mat": (".mat", mat(cube_of()[:30]), ("not a cube", "(30, 24, 20)", "(31, W, H)")),
    "bands last mat": (".mat", mat(cube_of().transpose(1, 2, 0)), ("not a cube", "(31, W, H)")),
    "descending mat": (".mat", mat(cube_of(), BANDS_NM[::-1]), ("ascending",)),
    "other bands mat": (".mat", mat(cube_of(), range(410, 711, 10)), ("400, 410",)),
    "30 wavelengths mat": (".mat", mat(cube_of(), BANDS_NM[:30]), ("400, 410",)),
    "uint16 mat": (".mat", mat(np.zeros((31, 9, 9), "u2")), ("not a cube", "uint16")),
    "nan mat": (".mat", mat(with_value(np.nan)), ("NaN",)),
    "other names mat": (".mat", lambda path: h5py.File(path, "w").close(), ("'cube'", "'bands'")),
    "group mat": (".mat", groups, ("not a dataset",)),
    "hole mat": (".mat", hole, ("never written",)),
    "empty hdr": (".hdr", content(b""), ("empty",)),
    "radiance hdr": (".hdr", content(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n"), ("no ENVI header",)),
    "binary hdr": (".hdr", content(bytes(range(256))), ("no ENVI header",)),
    "30 bands hdr": (".hdr", header("bands = 31", "bands = 30"), ("31 wavelengths for 30 bands",)),
    "no wavelengths hdr": (".hdr", header("wavelength =", "other ="), ("wavelength",)),
    "descending hdr": (".hdr", header(ASCENDING, REVERSED), ("ascending",)),
    "micrometres hdr": (".hdr", header("400, 410, 420", "0.40, 0.41, 0.42"), ("400, 410",)),
    "tiled hdr": (".hdr", header("bsq", "tiled"), ("interleave", "tiled", "bsq, bil or bip")),
    "complex hdr": (".hdr", header("data type = 4", "data type = 6"), ("data type", "6")),
    "middle-endian hdr": (".hdr", header("byte order = 0", "byte order = 2"), ("byte order 2",)),
    "tiff hdr": (".hdr", header("ENVI Standard", "TIFF"), ("tiff", "ENVI Standard")),
    "no type hdr": (".hdr", header("data type = 4", ""), ("data type",)),
    "no end hdr": (".hdr", header("}", ""), ("no closing brace",)),
    "words hdr": (".hdr", header("lines = 20", "lines = many"), ("lines", "many")),
    "negative hdr": (".hdr", header("lines = 20", "lines = -20"), ("not a cube",)),
    "zero hdr": (".hdr", header("lines = 20", "lines = 0"), ("not a cube",)),
}


@pytest.mark.parametrize("name", BAD)
def test_file_that_is_not_a_cube_is_refused(tmp_path: Path, name: str) -> None:
    suffix, make, words = BAD[name]
    path = tmp_path / f"bad{suffix}"
    make(path)
    with refusal(path, *words):
        read_cube(path)


@every_format
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_cube_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = save(tmp_path / f"c{suffix}", cube_of())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with refusal(path):
        read_cube(path)


@every_format
def test_missing_file_and_directory_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    with refusal(path, "no such file"):
        read_cube(path)
    path.mkdir()
    with refusal(path, "directory"):
        read_cube(path)


@every_format
def test_mutated_bytes_raise_only_ccnet_errors(tmp_path: Path, suffix: str) -> None:
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
