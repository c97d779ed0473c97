"""MATLAB files of cubes: written as NTIRE does, read from other programs."""

from __future__ import annotations

import fcntl
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from ccnet.contract import BANDS_NM
from ccnet.runtime.io.cubes import read_cube
from tests.runtime.io.cube_files import cube_of, refusal, save, write_mat


def test_mat_file_has_the_layout_of_ntire(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("compress", [False, True])
def test_cube_of_matlab_5_is_read(tmp_path: Path, compress: bool) -> None:
    cube, path = cube_of(), tmp_path / "c.mat"
    scipy.io.savemat(path, {"cube": cube.transpose(1, 2, 0), "bands": np.array(BANDS_NM)}, do_compression=compress)
    found = read_cube(path)
    np.testing.assert_array_equal(found, cube)
    assert found.flags.c_contiguous and found.flags.writeable


def test_cube_in_another_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "other.mat", cube_of())
    path = save(tmp_path / "c.mat", cube_of())
    with h5py.File(path, "r+") as file:
        del file["cube"]
        file["cube"] = h5py.ExternalLink("other.mat", "/cube")
    with refusal(path, "'cube' is not a dataset inside this file"):
        read_cube(path)


def test_unwritten_chunk_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.mat", "w") as file:
        data = file.create_dataset("cube", (31, 24, 20), np.float32, chunks=(1, 24, 20))
        data[:30] = cube_of()[:30].transpose(0, 2, 1)
        file["bands"] = BANDS_NM
    with refusal(tmp_path / "c.mat", "truncated"):
        read_cube(tmp_path / "c.mat")


def test_file_that_another_program_has_locked_is_read(tmp_path: Path) -> None:
    path, cube = save(tmp_path / "c.mat", cube_of()), cube_of()
    with path.open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock"):  # the control: HDF5's own choice is to fail
            h5py.File(path, "r", locking=True)
        np.testing.assert_array_equal(read_cube(path), cube)
