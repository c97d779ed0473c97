"""Synthetic cubes, a camera, and writers of the data sets' file formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import torch
from spectral.io import envi

from ccnet.contract import BANDS_NM
from ccnet.data.camera import Array, Camera
from ccnet.data.datasets import Scene
from ccnet.data.patches import SceneDataset

MakeCube = Callable[..., Array]


@pytest.fixture(scope="session")
def make_cube() -> MakeCube:
    """make_cube(height, width, seed): smooth spectra in [0, 1], each pixel a mixture of four bumps."""

    def make(height: int = 32, width: int = 32, seed: int = 0) -> Array:
        rng = np.random.default_rng(seed)
        nm = np.array(BANDS_NM, np.float64)[:, None]
        bumps = np.exp(-(((nm - rng.uniform(400, 700, 4)) / 60) ** 2))  # (31, 4)
        shares = rng.dirichlet(np.ones(4), (height, width))  # the shares of a pixel sum to 1
        return np.einsum("bi,hwi->bhw", bumps, shares).clip(0, 1).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def camera() -> Camera:
    """Three broad channels."""
    nm = np.array(BANDS_NM, np.float64)[:, None]
    response = np.exp(-(((nm - np.array([600, 540, 450])) / 50) ** 2))
    return Camera(name="test", response=(response / response.sum(0)).astype(np.float32))


@pytest.fixture(scope="session")
def make_scenes() -> Callable[..., SceneDataset]:
    """make_scenes(camera, cube, …): scenes in memory, named 0, 1, …"""

    def make(camera: Camera, *cubes: Array) -> SceneDataset:
        scenes = tuple(Scene(name=str(i), read_cube=partial(np.copy, cube)) for i, cube in enumerate(cubes))
        return SceneDataset(scenes=scenes, cameras=(camera,))

    return make


@pytest.fixture
def camera_file(tmp_path: Path, camera: Camera) -> Path:
    """The camera as a response file of NTIRE 2020."""
    path = tmp_path / "camera.npz"
    np.savez(path, filters=camera.response.astype(np.float64), bands=np.array([BANDS_NM]))
    return path


@pytest.fixture(scope="session")
def write_cave() -> Callable[[Path, Array], Path]:
    """write_cave(folder / "NAME_ms", cube): one scene in CAVE's layout."""

    def write(scene: Path, cube: Array) -> Path:
        scene.mkdir(parents=True)
        for band, plane in enumerate(cube, 1):
            cv2.imwrite(str(scene / f"{scene.name}_{band:02d}.png"), np.round(plane * 65535).astype(np.uint16))
        return scene

    return write


@pytest.fixture(scope="session")
def write_mat73() -> Callable[..., Path]:
    """write_mat73(path, cube, bands): as MATLAB's ``save -v7.3`` stores NTIRE 2022, axes in reverse, in float64."""

    def write(path: Path, cube: Array, bands: Any = BANDS_NM) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        planes = cube.transpose(0, 2, 1).astype(np.float64)
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_dataset("cube", data=planes, chunks=(1, *planes.shape[1:]), compression="gzip")
            file["bands"] = np.array(bands, np.float64).reshape(-1, 1)
            file["norm_factor"] = np.array([[4095.0]])
            for data in file.values():
                data.attrs["MATLAB_class"] = np.bytes_("double")
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(116) + bytes(8) + b"\0\2IM")
        return path

    return write


@pytest.fixture(scope="session")
def write_mat5() -> Callable[..., Path]:
    """write_mat5(path, cube, bands): as MATLAB's ``save -v7`` stores NTIRE 2020, (H, W, 31) in float64."""

    def write(path: Path, cube: Array, bands: Any = BANDS_NM) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"cube": cube.transpose(1, 2, 0).astype(np.float64), "bands": np.array(bands), "norm_factor": 4095.0}
        scipy.io.savemat(path, values, do_compression=True)
        return path

    return write


@pytest.fixture(scope="session")
def write_envi() -> Callable[..., Path]:
    """write_envi(path, cube, fields, …): header and .img; fields update the header, None removes one."""

    def write(path: Path, cube: Any, fields: dict[str, Any] | None = None, **save: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"wavelength": list(BANDS_NM), "wavelength units": "Nanometers"} | (fields or {})
        known = {key: value for key, value in header.items() if value is not None}
        envi.save_image(str(path), cube.transpose(1, 2, 0), dtype=cube.dtype, ext="img", metadata=known, **save)
        return path

    return write


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore torch's number of threads after a test that changes it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
