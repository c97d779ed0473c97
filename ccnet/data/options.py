"""Command-line options for cubes and the cameras that make frames of them, each declared once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ccnet.contract import CCNetError

from .camera import TRACKS, Camera, Imaging, Track, read_cameras
from .colour.lights import LIGHT_HELP, find_light
from .datasets import Split, open_source
from .patches import SceneDataset

SOURCE_FORMAT = "KIND:PATH, where KIND is cave, ntire2022, ntire2020-clean, ntire2020-real or envi"
"""Form of a data set on the command line."""

CAMERA_HELP = "Camera response (.json, .csv, .npz) or a folder of them, may be repeated"

CameraOption = Annotated[
    list[Path] | None,
    typer.Option("--camera", help=f"{CAMERA_HELP}: each frame is made by one of them; published frames if not given."),
]

IlluminantOption = Annotated[
    str | None,
    typer.Option(help=f"Light on the scenes: {LIGHT_HELP}; equal energy at each wavelength if not given."),
]

TrackOption = Annotated[
    Track, typer.Option(help="clean: Eq. 2 alone, 16 bits if written; real: noise, 8 bits and JPEG artifacts.")
]

ExposureOption = Annotated[
    tuple[float, float],
    typer.Option(
        metavar="LOWEST HIGHEST", help="Range of a random exposure error of each frame; the cube is not scaled."
    ),
]


BrightnessOption = Annotated[
    tuple[float, float],
    typer.Option(
        metavar="LOWEST HIGHEST",
        help="Range of the random factor of the light on each training patch: frame and cube are scaled together.",
    ),
]


MeasuredOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--cameras",
        help=f"Measured cameras for a share of the training patches, each behind its colour matrix. {CAMERA_HELP}.",
    ),
]

ShareOption = Annotated[
    float, typer.Option("--camera-share", min=0, max=1, help="Share of the patches that --cameras make.")
]

SurfacesOption = Annotated[
    Path | None,
    typer.Option(
        help="Reflectances (.npz, .npy) that replace materials in a share of the patches, under their shading."
    ),
]

SurfaceShareOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the patches in which --surfaces replace about half of the pixels.")
]

VariationOption = Annotated[
    float,
    typer.Option(
        "--vary-spectra", min=0, max=1, help="Share of the patches whose spectra are shifted, stretched and made paler."
    ),
]

CameraShiftOption = Annotated[
    float,
    typer.Option(min=0, metavar="NM", help="Use each of --cameras also with its response shifted by ± this many nm."),
]

HeldOutBrandOption = Annotated[
    list[str] | None,
    typer.Option("--held-out-brand", help="Brand whose --cameras are not trained on, e.g. Nikon, may be repeated."),
]


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Values of the options that say how frames are made of cubes.

    Attributes:
        camera: Response files or folders of them; empty or None for the frames that a data set publishes.
        illuminant: Light on the scenes, as ``find_light`` takes it; None for equal energy.
        track: Name of the imaging model, a key of ``TRACKS``.
        exposure: Lowest and highest exposure factor.
    """

    camera: list[Path] | None
    illuminant: str | None
    track: Track
    exposure: tuple[float, float]

    @property
    def imaging(self) -> Imaging:
        """Imaging model of the track, with the exposure range."""
        return replace(TRACKS[self.track], exposure=self.exposure)

    def read_cameras(self, files: list[Path]) -> tuple[Camera, ...]:
        """Return the cameras of response files or folders of them, in the light on the scenes."""
        return read_cameras(files, None if self.illuminant is None else find_light(self.illuminant))

    def open_scenes(self, source: str, split: Split, memory_gb: float = 8) -> SceneDataset:
        """Open a data set, with the cameras that make its frames.

        Args:
            source: Data set as ``SOURCE_FORMAT`` describes it.
            split: Published split to open, where the data set has splits.
            memory_gb: Cubes to keep in memory, GB.

        Returns:
            The scenes, not read yet.

        Raises:
            CCNetError: A file is missing or damaged, or an option needs a camera.
        """
        imaging = self.imaging
        if not self.camera and (self.illuminant is not None or imaging != TRACKS["clean"]):
            raise CCNetError("--illuminant, --track and --exposure need a --camera: published frames stay as they are")
        cameras = self.read_cameras(self.camera) if self.camera else ()
        kind, _, path = source.partition(":")
        resolved = f"{kind}:{Path(path).resolve()}"
        scenes = open_source(source, split)
        return SceneDataset(
            scenes=scenes, cameras=cameras, imaging=imaging, source=resolved, cache_bytes=int(memory_gb * 1e9)
        )

    def describe(self, scenes: SceneDataset) -> dict[str, Any]:
        """Return the cameras and imaging of the scenes' frames as plain values for JSON."""
        return {
            "cameras": [camera.name for camera in scenes.cameras],
            "track": self.track,
            "exposure": scenes.imaging.exposure,
            "illuminant": self.illuminant,
        }
