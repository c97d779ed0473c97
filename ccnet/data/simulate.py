"""Frames on disk as cameras would have taken them of cubes, for ``ccnet reconstruct --input-space camera``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ccnet.contract import CCNetError, make_folder, write_atomic

from .camera import Array, Camera, Imaging
from .datasets import Scene


def frame_folders(cameras: Sequence[Camera], folder: Path) -> list[Path]:
    """Where each camera's frames go: one camera's to the folder itself, several's to folders in it by their names."""
    if len(cameras) == 1:
        return [folder]
    # A name comes from a file, which may come from anywhere
    folders = [folder / (re.sub(r"[^\w+-]+", "_", camera.name).strip("_") or "camera") for camera in cameras]
    for index, each in enumerate(folders):
        if each in folders[:index]:
            raise CCNetError(f"{each}: two cameras have this name; simulate them one at a time")
    return folders


def simulate(
    scenes: Sequence[Scene], cameras: Sequence[Camera], imaging: Imaging, folder: Path, seed: int
) -> Iterator[Path]:
    """Write NAME.png of each scene and camera, its path as each one is there: linear RGB, of 8 or 16 bits.

    16 bits hold k/65535; 8 bits, where the imaging has them, are exactly its values: a JPEG's errors are in the
    pixels, and a second coding adds none. The noise of a frame depends on the seed and on its scene's and camera's
    places alone.
    """
    targets = [[into / f"{scene.name}.png" for scene in scenes] for into in frame_folders(cameras, folder)]
    names = [scene.name for scene in scenes]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise CCNetError(f"{targets[0][index]}: two scenes have this name; simulate them one at a time")
    for index, scene in enumerate(scenes):
        cube = scene.read_cube()
        for which, camera in enumerate(cameras):
            frame = imaging(camera.frame(cube), np.random.default_rng((seed, which, index)))
            target = targets[which][index]
            make_folder(target.parent)
            write_atomic(target, png(frame, np.uint8 if imaging.eight_bit else np.uint16))
            yield target


def png(frame: Array, dtype: type[np.uint8] | type[np.uint16]) -> bytes:
    """frame (3, H, W) in [0, 1] → a PNG of this depth's full range."""
    import cv2

    pixels = np.rint(frame * np.iinfo(dtype).max).astype(dtype)
    _, code = cv2.imencode(".png", np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0)))
    return code.tobytes()
