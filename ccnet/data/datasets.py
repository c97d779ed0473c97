"""Data sets in their published layouts: the scenes of a folder, each read when it is needed.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from ccnet.contract import CCNetError, decode_errors_as
from ccnet.runtime.io.files import walk_files

from .camera import Array
from .readers import (
    cave_bands,
    check_envi_cube,
    read_cave,
    read_cave_band,
    read_envi_cube,
    read_ntire_cube,
    read_ntire_frame,
)

Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A cube of a data set, and the frame that was published with it, if there is one.

    Attributes:
        name: The scene's name in its data set.
        read_cube: Reads the cube (31, H, W), bands ascending from 400 nm; NaN where it has no data.
        read_frame: Reads the published frame (3, H, W), RGB in [0, 1]; None where no frame was published.

    Both functions read the disk at each call, and raise CCNetError where the file is not what it should be.
    """

    name: str
    read_cube: Callable[[], Array]
    read_frame: Callable[[], Array] | None = None


def open_source(source: str, split: Split) -> tuple[Scene, ...]:
    """Find the scenes of a source on the command line. No cube is read yet.

    Args:
        source: ``KIND:PATH`` with one of the kinds ``cave``, ``envi``, ``ntire2020-clean``, ``ntire2020-real`` and
            ``ntire2022``; docs/data.md has their layouts.
        split: The published split to take; data sets without one have the same scenes in both.

    Returns:
        The scenes, in the data set's order.

    Raises:
        CCNetError: The source is unknown, or a file of it is missing.
    """
    kind, _, path = source.partition(":")
    if kind not in _KINDS or not path:
        raise CCNetError(f"data is {source!r}, expected KIND:PATH with one of the kinds {', '.join(_KINDS)}")
    with decode_errors_as(Path(path), f"{kind} data"):
        return tuple(_KINDS[kind](Path(path), split))


def _cave(folder: Path, split: Split) -> Iterator[Scene]:
    """Yield the scenes of a folder; no split was published. A scene's first band shows the type of the others."""
    _refuse_two_splits("cave", folder)
    for scene in cave_scenes(folder):
        read_cave_band(cave_bands(scene)[0])
        yield Scene(name=scene.name, read_cube=partial(read_cave, scene))


def cave_scenes(folder: Path) -> list[Path]:
    """Return the scene folders of a CAVE-format folder, sorted; a scene holds ``*_01.png`` … ``*_31.png``."""
    if not folder.is_dir():
        raise CCNetError(f"{folder}: no such folder, expected one with CAVE scenes (NAME_ms/NAME_ms_01.png …)")
    scenes = sorted({path.parent for path in walk_files(folder) if path.name.endswith("_01.png")})
    if not scenes:
        raise CCNetError(f"{folder}: holds no CAVE scene, expected NAME_ms/NAME_ms_01.png … _31.png in it")
    return scenes


def _envi(path: Path, split: Split) -> Iterator[Scene]:
    """Yield the scenes of a folder, or of a single header; there is no split."""
    _refuse_two_splits("envi", path)
    headers = [path] if path.suffix.lower() == ".hdr" else [p for p in walk_files(path) if p.suffix.lower() == ".hdr"]
    if not headers:
        raise CCNetError(f"{path}: holds no ENVI cube, expected .hdr headers with their .img in it")
    for header in headers:
        check_envi_cube(header)
        yield Scene(name=header.stem, read_cube=partial(read_envi_cube, header))


def _refuse_two_splits(kind: str, folder: Path) -> None:
    """Raise a CCNetError for a folder with ``train`` and ``val``: whoever asks for a split would get all scenes."""
    if all((folder / split).is_dir() for split in ("train", "val")):
        raise CCNetError(
            f"{folder}: has the folders train and val, expected the scenes of one of them, as {kind} has no published"
            f" split: {kind}:{folder / 'train'} or {kind}:{folder / 'val'}"
        )


def _ntire2022(folder: Path, split: Split) -> Iterator[Scene]:
    """Yield the scenes of ARAD_1K that the split's list names: MST++'s lists leave out 0314, 0340 and 0531."""
    first, names = {"train": ("Train", "train_list.txt"), "val": ("Valid", "valid_list.txt")}[split]
    cubes = _Files.find(folder, f"{first}_Spec", ".mat", like="(Train|Valid)_Spec(tral)?")
    frames = _Files.find(folder, f"{first}_RGB", ".jpg", like="(Train|Valid)_RGB")
    return _pairs(_read_list(folder / "split_txt" / names), cubes, frames)


def _ntire2020(folder: Path, split: Split, *, track: str, ending: str) -> Iterator[Scene]:
    """Yield the scenes of ARAD_HS in a split's two folders, which must agree; no lists were published."""
    part = {"train": "NTIRE2020_Train", "val": "NTIRE2020_Validation"}[split]
    cubes = _Files.find(folder, f"{part}_Spectral", ".mat")
    frames = _Files.find(folder, f"{part}_{track}", ending)
    if not cubes.paths:
        raise CCNetError(f"{cubes.home}: holds no cube, expected ARAD_HS_0001.mat … in it; unpack the data set there")
    return _pairs(sorted({*cubes.paths, *frames.paths}), cubes, frames)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The cubes, or the frames, of a data set by scene; ``home`` is the folder that a missing file belongs in."""

    home: Path
    ending: str
    paths: Mapping[str, Path]

    @classmethod
    def find(cls, folder: Path, name: str, ending: str, *, like: str | None = None) -> _Files:
        """Find files ``SCENE + ending`` at any depth of a data set's subfolders, upper and lower case alike.

        Args:
            folder: The data set.
            name: Name of the subfolder.
            ending: End of the files' names.
            like: Pattern of all names that the subfolder may have; None is ``name`` alone.

        Returns:
            The files by scene.

        Raises:
            CCNetError: The folder does not exist.
        """
        if not folder.is_dir():
            raise CCNetError(f"{folder}: no such folder, expected one that holds {name}")
        called = re.compile(like or re.escape(name), re.IGNORECASE)
        paths = {
            path.name[: -len(ending)]: path
            for child in sorted(folder.iterdir())
            if called.fullmatch(child.name)
            for path in walk_files(child)
            if path.name.lower().endswith(ending.lower())
        }
        return cls(home=folder / name, ending=ending, paths=paths)

    def path(self, scene: str) -> Path:
        """Return the file of a scene; CCNetError where it is missing."""
        if scene not in self.paths:
            missing = self.home / f"{scene}{self.ending}"
            raise CCNetError(f"{missing}: no such file, expected every scene's cube and frame; download it")
        return self.paths[scene]


def _pairs(names: Iterable[str], cubes: _Files, frames: _Files) -> Iterator[Scene]:
    """Yield each scene's cube and frame; without any frame the cubes are still usable with a camera."""
    for name in names:
        read_cube = partial(read_ntire_cube, cubes.path(name))
        read_frame = partial(read_ntire_frame, frames.path(name)) if frames.paths else None
        yield Scene(name=name, read_cube=read_cube, read_frame=read_frame)


def _read_list(path: Path) -> list[str]:
    """Read the scenes of a split list, one a line, with or without the ending of their files."""
    with decode_errors_as(path, "a list of scenes, one a line, as MST++'s split_txt has"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    scenes = [re.sub(r"\.(mat|jpg)$", "", line.strip(), flags=re.IGNORECASE) for line in lines if line.strip()]
    if not scenes:
        raise CCNetError(f"{path}: is empty, expected a list of scenes, one a line, as MST++'s split_txt has")
    return scenes


_KINDS: Mapping[str, Callable[[Path, Split], Iterable[Scene]]] = {
    "cave": _cave,
    "envi": _envi,
    "ntire2020-clean": partial(_ntire2020, track="Clean", ending="_clean.png"),
    "ntire2020-real": partial(_ntire2020, track="RealWorld", ending="_RealWorld.jpg"),
    "ntire2022": _ntire2022,
}
