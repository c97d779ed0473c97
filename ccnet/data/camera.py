"""The frame that a camera makes of a cube (Eq. 2): spectral response, illuminant, and what a real camera adds.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

from .spectra import READERS, Values, read_spectra

Array = npt.NDArray[np.float32]
Track = Literal["clean", "real"]


@dataclass(frozen=True, kw_only=True)
class Illuminant:
    """Spectral power of a light on the cube's bands. power: (31,), relative, at least 0."""

    name: str
    power: Values


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Spectral response of a camera's three channels on the cube's bands.

    response: (31, 3), each column summing to 1, so that a flat spectrum v gives the pixel (v, v, v).
    """

    name: str
    response: Array

    @classmethod
    def read(cls, path: Path) -> Camera:
        """One response file: rawtoaces JSON, CSV or NTIRE 2020 ``.npz``, any sampling (``spectra.read_spectra``).

        Channels are R, G and B by name (red, green, blue; G1 is the green of NTIRE 2022's camera). The name is
        manufacturer and model where the file has them, else the file's own.
        """
        spectra = read_spectra(path, "a camera response", _rgb)
        return cls(name=spectra.name, response=_white_balanced(spectra.values))

    def under(self, illuminant: Illuminant) -> Camera:
        """The camera in this light, white-balanced: S_c·E on each band, so that a white reflector stays (1, 1, 1)."""
        response = self.response * illuminant.power[:, None]
        if not response.any(0).all():
            raise CCNetError(f"{illuminant.name} lights no band that a channel of {self.name} sees: name another light")
        return Camera(name=f"{self.name} under {illuminant.name}", response=_white_balanced(response))

    def frame(self, cube: Array) -> Array:
        """Eq. 2: I_c = Σ_λ S_c^λ H_λ, clipped to [0, 1]. cube (31, H, W) → frame (3, H, W)."""
        frame: Array = np.clip(np.einsum("bc,bhw->chw", self.response, cube), 0, 1, dtype=np.float32)
        return frame


def read_cameras(paths: Sequence[Path], illuminant: Path | None = None) -> tuple[Camera, ...]:
    """The cameras of response files, in order, where a folder stands for those in it, sorted; in a light, if given."""
    cameras = tuple(Camera.read(file) for path in paths for file in (_responses(path) if path.is_dir() else [path]))
    if illuminant is None:
        return cameras
    light = read_illuminant(illuminant)
    return tuple(camera.under(light) for camera in cameras)


def read_illuminant(path: Path) -> Illuminant:
    """A light's spectral power: rawtoaces JSON, CSV of wavelength and power, or ``.npz`` with ``power`` (N,)."""
    spectra = read_spectra(path, "an illuminant", _power)
    return Illuminant(name=path.stem, power=spectra.values[:, 0])


def _responses(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READERS)
    if not files:
        raise CCNetError(f"{folder}: holds no camera response, expected one of {', '.join(READERS)}")
    return files


def _white_balanced(response: npt.NDArray[np.floating]) -> Array:
    balanced: Array = (response / response.sum(0)).astype(np.float32)
    return balanced


def _rgb(names: Sequence[str]) -> list[int]:
    """Where R, G and B are among a file's curves."""
    plain = [name.strip().lower() for name in names]
    found = [[i for i, name in enumerate(plain) if name in channel] for channel in _CHANNELS]
    if any(len(places) != 1 for places in found):
        raise CCNetError(f"channels are {str(list(names))[:80]}, expected one each of R, G and B")
    return [places[0] for places in found]


_CHANNELS = (("r", "red"), ("g", "green", "g1"), ("b", "blue"))


def _power(names: Sequence[str]) -> list[int]:
    """The curve called power, or the only one that there is."""
    plain = [name.strip().lower() for name in names]
    if len(names) != 1 and plain.count("power") != 1:
        raise CCNetError(f"curves are {str(list(names))[:80]}, expected a single one, or one called power")
    return [plain.index("power") if len(names) > 1 else 0]


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """What a real camera adds to Eq. 2, in this order; by default nothing. All of it acts on linear light.

    exposure: the lowest and highest factor of an exposure error, drawn log-uniformly for each frame. The camera's
    mistake is not the scene's: the cube stays as it is, and a network cannot tell the factor from a brighter scene.
    full_well: electrons of a white pixel; with it come shot noise (Poisson, by a Gaussian of the same variance) and
    read_noise, the standard deviation of the dark signal in electrons. None is no noise.
    eight_bit: values are rounded to k/255. jpeg: quality 1-100, with the chroma subsampling of OpenCV's codec (4:2:0).
    """

    exposure: tuple[float, float] = (1.0, 1.0)
    full_well: float | None = None
    read_noise: float = 0.0
    eight_bit: bool = False
    jpeg: int | None = None

    def __post_init__(self) -> None:
        low, high = self.exposure
        if not 0 < low <= high < np.inf:
            raise CCNetError(f"exposure is {self.exposure}, expected two factors, 0 < lowest ≤ highest")
        if self.full_well is not None and not 0 < self.full_well < np.inf:
            raise CCNetError(f"full_well is {self.full_well}, expected electrons, more than 0; None is no noise")
        if not 0 <= self.read_noise < np.inf or (self.read_noise and self.full_well is None):
            raise CCNetError(f"read_noise is {self.read_noise}, expected electrons, at least 0, beside a full_well")
        if self.jpeg is not None and not (1 <= self.jpeg <= 100 and self.eight_bit):
            raise CCNetError(f"jpeg is {self.jpeg}, expected a quality from 1 to 100, with eight_bit, as JPEG is")

    def __call__(self, frame: Array, rng: np.random.Generator) -> Array:
        """frame (3, H, W) in [0, 1] → the same shape and range; the generator's state decides all of it."""
        if self.exposure != (1.0, 1.0):
            frame = _clip(frame * np.exp(rng.uniform(*np.log(self.exposure))))
        if self.full_well is not None:
            variance = frame / self.full_well + (self.read_noise / self.full_well) ** 2
            frame = _clip(frame + np.sqrt(variance) * rng.standard_normal(frame.shape, np.float32))
        if self.eight_bit:
            frame = _from_bytes(_to_bytes(frame) if self.jpeg is None else _through_jpeg(_to_bytes(frame), self.jpeg))
        return frame


TRACKS: Mapping[Track, Imaging] = {
    "clean": Imaging(),
    "real": Imaging(full_well=6500, read_noise=10, eight_bit=True, jpeg=65),
}
"""As in the NTIRE challenges. "clean" is Eq. 2 alone.

"real" follows the published simulation of NTIRE 2022 (github.com/boazarad/NTIRE2022_spectral): 750 photo-electrons a
unit, which is about 6500 for white in the sum over its camera's green channel, and JPEG of quality 65. The read noise
of 10 electrons is NTIRE 2020's (github.com/boazarad/NTIRE2020_spectral). The competition's own values are secret, and
similar as that code says. Left out: the mosaic of 2020, and the brightness that 2022 sets for each frame.
"""


def _clip(frame: npt.NDArray[np.floating]) -> Array:
    clipped: Array = np.clip(frame, 0, 1, dtype=np.float32)
    return clipped


def _to_bytes(frame: Array) -> npt.NDArray[np.uint8]:
    return np.rint(frame * 255).astype(np.uint8)


def _from_bytes(pixels: npt.NDArray[np.uint8]) -> Array:
    return np.divide(pixels, 255, dtype=np.float32)


def _through_jpeg(pixels_CHW: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    import cv2

    bgr = np.ascontiguousarray(pixels_CHW[::-1].transpose(1, 2, 0))
    _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded.transpose(2, 0, 1)[::-1])
