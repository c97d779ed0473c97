"""Parts of cubes that are read on demand are those of the whole cube."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.runtime.io.cubes import map_cube, read_cube
from ccnet.runtime.io.formats.mapped_cube import Selection
from ccnet.runtime.io.formats.zarr_array import map_zarr, zarr_arrays
from ccnet.runtime.stream.sinks import ZarrGroup
from tests.runtime.io.cube_files import cube_of, every_format, refusal, save

PARTS = [
    ([0, 15, 30], Selection(0, 150), Selection(0, 140)),
    ([30, 2, 2], Selection(7, 8), Selection(139, 140)),
    ([5], Selection(3, 149, 2), Selection(1, 140, 5)),
    ([1, 29], Selection(0, 150, 70), Selection(10, 12, 9)),
]


@every_format
def test_part_is_that_of_the_whole_cube(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"c{suffix}", cube_of(150, 140))
    whole = read_cube(path)
    with map_cube(path) as cube:
        assert cube.shape == whole.shape
        assert list(cube.wavelengths) == list(range(400, 701, 10))
        for bands, rows, columns in PARTS:
            part = cube.read(bands, rows, columns)
            assert part.dtype == np.float32
            np.testing.assert_array_equal(part, whole[bands][:, rows.as_slice(), columns.as_slice()])


def test_arrays_of_a_stream_are_cubes(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    sink = ZarrGroup(tmp_path / "g.zarr")
    for seed in (0, 1):
        with sink.cube(None, 150, 140, {}) as writer:
            writer.write(0, cube_of(150, 140, seed))
    (tmp_path / "g.zarr" / ".ccnet-0.partial").mkdir()
    arrays = zarr_arrays(tmp_path / "g.zarr")
    assert [path.name for path in arrays] == ["00000000", "00000001"]
    assert zarr_arrays(arrays[1]) == [arrays[1]]
    for bands, rows, columns in PARTS:
        part = map_zarr(arrays[1]).read(bands, rows, columns)
        np.testing.assert_array_equal(part, cube_of(150, 140, 1)[bands][:, rows.as_slice(), columns.as_slice()])
    (tmp_path / "empty.zarr").mkdir()
    with refusal(tmp_path / "empty.zarr", "no Zarr array"):
        zarr_arrays(tmp_path / "empty.zarr")


def test_values_without_data_are_nan(tmp_path: Path) -> None:
    cube = cube_of(3, 4)
    cube[2, 1, 1] = -1
    path = save(tmp_path / "c.hdr", cube)
    path.write_text(f"{path.read_text()}data ignore value = -1\nreflectance scale factor = 2\n")
    with map_cube(path) as mapped:
        part = mapped.read([2], Selection(0, 3), Selection(0, 4))
    assert np.isnan(part[0, 1, 1])
    np.testing.assert_allclose(part[0, 0], cube[2, 0] / 2, rtol=1e-6)


def test_bad_bands_are_nan(tmp_path: Path) -> None:
    path = save(tmp_path / "c.hdr", cube_of(3, 4))
    good = ", ".join("0" if band in (2, 30) else "1" for band in range(31))
    path.write_text(f"{path.read_text()}bbl = {{{good}}}\n")
    with map_cube(path) as mapped:
        part = mapped.read([30, 1, 2], Selection(0, 3), Selection(0, 4))
    assert np.isnan(part[[0, 2]]).all()
    np.testing.assert_array_equal(part[1], cube_of(3, 4)[1])
