"""The frame that a camera takes of a cube (Eq. 2): spectral response, illuminant, and what a real camera adds.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError

from .spectra import READERS, Values, read_spectra

Array = npt.NDArray[np.float32]
Track = Literal["clean", "real"]


@dataclass(frozen=True, kw_only=True)
class Illuminant:
    """Spectral power of a light on the cube's bands.

    Attributes:
        name: The file's name without its suffix.
        power: (31,), relative, at least 0.
    """

    name: str
    power: Values


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Spectral response of a camera's three channels on the cube's bands.

    Attributes:
        name: Manufacturer and model, or the name of the response file.
        response: (31, 3); each column sums to 1, so that a flat spectrum v gives the pixel (v, v, v).
        gains: Sensitivities of the channels to equal energy, as multiples of G's, before the white balance.
        matrix: Colour matrix (3, 3) that frames go through after all errors of the imaging; None leaves them.
    """

    name: str
    response: Array
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    matrix: Values | None = None

    @classmethod
    def read(cls, path: Path) -> Camera:
        """Read a response file, of any sampling; a CCNetError of one line says why it cannot be read.

        Args:
            path: rawtoaces JSON, CSV or NTIRE 2020 ``.npz`` (see ``spectra.read_spectra``). Its channels have the names
                R, G and B, or red, green and blue; G1 is the green channel of NTIRE 2022's camera.

        Returns:
            The camera.
        """
        spectra = read_spectra(path, "a camera response", _rgb)
        sums = (spectra.values * spectra.peaks).sum(0)
        red, green, blue = (sums / sums[1]).tolist()
        return cls(name=spectra.name, response=_white_balanced(spectra.values), gains=(red, green, blue))

    def to_entry(self) -> dict[str, Any]:
        """Return the camera as plain values for checkpoints and manifests, which ``camera_response`` checks."""
        return {"name": self.name, "response": self.response.tolist()}

    def under(self, illuminant: Illuminant) -> Camera:
        """Return the camera in this light, white-balanced: S_c·E on each band; a white reflector stays (1, 1, 1)."""
        response = self.response * illuminant.power[:, None]
        if not response.any(0).all():
            raise CCNetError(f"{illuminant.name} lights no band that a channel of {self.name} sees: name another light")
        return Camera(name=f"{self.name} under {illuminant.name}", response=_white_balanced(response))

    def shifted(self, nm: float) -> Camera:
        """Return the white-balanced camera with its response moved to longer wavelengths; it repeats its ends."""
        bands = np.array(BANDS_NM)
        channels = [np.interp(bands - nm, bands, channel) for channel in self.response.T]
        return replace(self, name=f"{self.name} shifted by {nm:g} nm", response=_white_balanced(np.stack(channels, 1)))

    def neutral(self, illuminant: Illuminant) -> Values:
        """Return the sensor's values (3,) of a white surface in this light, as multiples of G's."""
        white = illuminant.power @ self.response * self.gains
        return np.asarray(white / white[1], np.float64)

    def behind(self, matrix: Values) -> Camera:
        """Return this camera with a colour matrix (3, 3) behind it."""
        return replace(self, matrix=matrix)

    @property
    def frame_response(self) -> Array:
        """Response (31, 3) of the frame's channels: the camera's, mixed by the matrix."""
        return self.response if self.matrix is None else (self.response @ self.matrix.T).astype(np.float32)

    def correct(self, frame: Array) -> Array:
        """Return the camera's frame (3, H, W) after the colour matrix, clipped to [0, 1]."""
        return frame if self.matrix is None else _clip(np.einsum("dc,chw->dhw", self.matrix, frame))

    def frame(self, cube: Array) -> Array:
        """Return the frame (3, H, W) of a cube (31, H, W) by Eq. 2, I_c = Σ_λ S_c^λ H_λ, clipped to [0, 1]."""
        return _clip(np.einsum("bc,bhw->chw", self.response, cube))


def read_cameras(paths: Sequence[Path], illuminant: Illuminant | None = None) -> tuple[Camera, ...]:
    """Read the cameras of response files; a CCNetError of one line says why one cannot be read.

    Args:
        paths: Response files, and folders of them, whose files are taken in the order of their names.
        illuminant: Light that all cameras are used in; None leaves the responses as they are.

    Returns:
        The cameras, in order.
    """
    cameras = tuple(Camera.read(file) for path in paths for file in (response_files(path) if path.is_dir() else [path]))
    if illuminant is None:
        return cameras
    return tuple(camera.under(illuminant) for camera in cameras)


def read_illuminant(path: Path) -> Illuminant:
    """Read a light's spectral power: rawtoaces JSON, CSV of wavelength and power, or ``.npz`` with ``power`` (N,)."""
    spectra = read_spectra(path, "an illuminant", _power)
    return Illuminant(name=path.stem, power=spectra.values[:, 0])


def response_files(folder: Path) -> list[Path]:
    """Return the response files of a folder, sorted; CCNetError if there is none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READERS)
    if not files:
        raise CCNetError(f"{folder}: holds no camera response, expected one of {', '.join(READERS)}")
    return files


def _white_balanced(response: npt.NDArray[np.floating]) -> Array:
    return (response / response.sum(0)).astype(np.float32)


def _rgb(names: Sequence[str]) -> list[int]:
    """Return the indices of R, G and B among a file's curves."""
    lower = [name.strip().lower() for name in names]
    found = [[i for i, name in enumerate(lower) if name in channel] for channel in _CHANNELS]
    if any(len(places) != 1 for places in found):
        raise CCNetError(f"channels are {str(list(names))[:80]}, expected one each of R, G and B")
    return [places[0] for places in found]


_CHANNELS = (("r", "red"), ("g", "green", "g1"), ("b", "blue"))


def _power(names: Sequence[str]) -> list[int]:
    """Return the index of the curve called power, or of the only curve."""
    lower = [name.strip().lower() for name in names]
    if len(names) != 1 and lower.count("power") != 1:
        raise CCNetError(f"curves are {str(list(names))[:80]}, expected a single one, or one called power")
    return [lower.index("power") if len(names) > 1 else 0]


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """Errors of a real camera, on top of Eq. 2, in the order of the attributes; none by default.

    All of them act on linear light.

    Attributes:
        exposure: The lowest and highest factor of an exposure error, drawn log-uniformly for each frame. The cube is
            not scaled with it; a network cannot tell the factor from a brighter scene.
        full_well: Electrons of a white pixel, for shot noise (a Gaussian of Poisson's variance); None is no noise.
        read_noise: Standard deviation of the dark signal, in electrons; it needs a ``full_well``.
        eight_bit: Round values to k/255.
        jpeg: Quality from 1 to 100, with 4:2:0 chroma subsampling (OpenCV's codec); None is no JPEG. It needs
            ``eight_bit``.
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
        """Return the frame (3, H, W) in [0, 1] with the camera's errors; the generator's state decides all of them."""
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
"""The two tracks of the NTIRE challenges. "clean" is Eq. 2 alone.

"real" follows the published simulation of NTIRE 2022 (github.com/boazarad/NTIRE2022_spectral): 750 photo-electrons a
unit, which is about 6500 for white in the sum over its camera's green channel, and JPEG of quality 65. The read noise
of 10 electrons is NTIRE 2020's (github.com/boazarad/NTIRE2020_spectral). The competition's values are secret; that
code calls them similar. The mosaic of 2020 and the brightness that 2022 sets for each frame are not simulated.
"""


def _clip(frame: npt.NDArray[np.floating]) -> Array:
    return np.clip(frame, 0, 1, dtype=np.float32)


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
