"""Simulated frames of cubes as files, for ``ccnet reconstruct --input-space camera``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ccnet.contract import CCNetError, make_folder, write_atomic

from .camera import Array, Camera, Imaging
from .datasets import Scene
from .masks import fill_for_camera


def frame_folders(cameras: Sequence[Camera], folder: Path) -> list[Path]:
    """Return each camera's folder: a single camera's is the folder itself, several have subfolders by their names."""
    if len(cameras) == 1:
        return [folder]
    # A camera's name comes from a file of unknown origin: it must not leave the folder
    folders = [folder / (re.sub(r"[^\w+-]+", "_", camera.name).strip("_") or "camera") for camera in cameras]
    for index, each in enumerate(folders):
        if each in folders[:index]:
            raise CCNetError(f"{each}: two cameras have this name; simulate them one at a time")
    return folders


def simulate(
    scenes: Sequence[Scene], cameras: Sequence[Camera], imaging: Imaging, folder: Path, seed: int
) -> Iterator[Path]:
    """Write a PNG of linear RGB for each scene and camera.

    The PNG has 16 bits, k/65535, or the 8 bits of the imaging exactly: a simulated JPEG's errors are in the pixels, and
    the PNG adds none.

    Args:
        scenes: The scenes.
        cameras: The cameras; ``frame_folders`` gives the folder of each.
        imaging: Errors that a real camera adds.
        folder: The folder to write to; it is made where it is missing.
        seed: Seed of the noise; a frame's noise depends on it and on the positions of its scene and camera alone.

    Yields:
        The path of each PNG, once it is written.

    Raises:
        CCNetError: Two scenes or two cameras have the same name, or a file cannot be written.
    """
    targets = [[into / f"{scene.name}.png" for scene in scenes] for into in frame_folders(cameras, folder)]
    names = [scene.name for scene in scenes]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise CCNetError(f"{targets[0][index]}: two scenes have this name; simulate them one at a time")
    for index, scene in enumerate(scenes):
        cube = fill_for_camera(scene.read_cube())
        for position, camera in enumerate(cameras):
            frame = imaging(camera.frame(cube), np.random.default_rng((seed, position, index)))
            target = targets[position][index]
            make_folder(target.parent)
            write_atomic(target, png(frame, np.uint8 if imaging.eight_bit else np.uint16))
            yield target


def png(frame: Array, dtype: type[np.uint8] | type[np.uint16]) -> bytes:
    """Encode a frame (3, H, W) in [0, 1] as a PNG of this depth's full range."""
    import cv2

    pixels = np.rint(frame * np.iinfo(dtype).max).astype(dtype)
    _, code = cv2.imencode(".png", np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0)))
    return code.tobytes()
