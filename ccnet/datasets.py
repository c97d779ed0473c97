"""Cubes on disk in the layouts that they are published in, each scene read when it is needed.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ccnet.camera import Array
from ccnet.contract import BANDS_NM, CCNetError

Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One cube of a data set, and the frame that was published with it, if one was.

    read_cube: () → (31, H, W), bands ascending from 400 nm. read_frame: () → (3, H, W) RGB in [0, 1].
    Both read the disk at each call, and raise CCNetError where the file is not what it should be.
    """

    name: str
    read_cube: Callable[[], Array]
    read_frame: Callable[[], Array] | None = None


def open_source(source: str, split: Split) -> tuple[Scene, ...]:
    """The scenes of a source on the command line, ``KIND:PATH``, of its published split where it has one."""
    kind, _, folder = source.partition(":")
    if kind != "cave" or not folder:
        raise CCNetError(f"data is {source!r}, expected cave:FOLDER with CAVE scenes in the folder")
    return tuple(Scene(name=path.name, read_cube=partial(read_cave, path)) for path in cave_scenes(Path(folder)))


def cave_scenes(folder: Path) -> list[Path]:
    """The scene folders of a CAVE-format folder, sorted; a scene holds ``*_01.png`` … ``*_31.png``."""
    if not folder.is_dir():
        raise CCNetError(f"{folder}: no such folder, expected one with CAVE scenes (NAME_ms/NAME_ms_01.png …)")
    scenes = sorted({png.parent for png in folder.rglob("*_01.png")})
    if not scenes:
        raise CCNetError(f"{folder}: holds no CAVE scene (NAME_ms/NAME_ms_01.png … _31.png)")
    return scenes


def read_cave(scene: Path) -> Array:
    """One CAVE scene: 31 16-bit grey PNGs, band 01 = 400 nm → (31, H, W) in [0, 1].

    CCNetError for a missing band, a band that is not 16-bit grey (the original release's 8-bit RGBA
    ``watercolors``), or bands of different sizes.
    """
    bands = [_read_band(scene, band) for band in range(1, len(BANDS_NM) + 1)]
    shapes = {band.shape for band in bands}
    if len(shapes) > 1:
        raise CCNetError(f"{scene}: bands have different sizes {sorted(shapes)}")
    cube: Array = np.stack(bands).astype(np.float32) / np.float32(65535)
    return cube


def _read_band(scene: Path, band: int) -> npt.NDArray[np.uint16]:
    import cv2

    paths = sorted(scene.glob(f"*_{band:02d}.png"))
    if len(paths) != 1:
        raise CCNetError(f"{scene}: has {len(paths)} files for band {band:02d}, expected one *_{band:02d}.png")
    image = cv2.imdecode(np.fromfile(paths[0], np.uint8), cv2.IMREAD_UNCHANGED) if paths[0].stat().st_size else None
    if image is None:
        raise CCNetError(f"{paths[0]}: not a readable PNG")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise CCNetError(f"{paths[0]}: {image.dtype} with shape {image.shape}, expected a 16-bit grey PNG")
    return image.astype(np.uint16)
