"""RGB frames from files, and as tensors of the graphs. A bad file raises a CCNetError of one line."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, SIZE_MULTIPLE, CCNetError, decode_errors_as, prefix_errors

from .colour import declared_colour
from .files import native_messages, optional_module, read_head, visible_files
from .formats.npy import map_npy

Frame = npt.NDArray[np.uint8 | np.uint16 | np.float32]

MAX_PIXELS = 128_000_000

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "Png",
    b"\xff\xd8\xff": "Jpeg",
    b"II*\0": "Tiff",
    b"MM\0*": "Tiff",
    b"II+\0": "Tiff",
    b"MM\0+": "Tiff",
    b"BM": "Bmp",
    b"\x93NUMPY": "npy",
}
"""First bytes → Pillow's name of the format; the file's suffix does not matter."""

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".avif", ".heic", ".heif", ".npy")
"""Suffixes of the frames in a folder."""

_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "Avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"), "Heif"),
}
"""Brand of an ISO base media file → format."""

_CLASSES = {
    "Png": ("PIL.PngImagePlugin", "PngImageFile"),
    "Jpeg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "Tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "Bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "Avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "Heif": ("pillow_heif", "HeifImageFile"),
}
"""Format → module and class that decode it."""

_FORMATS = "PNG, JPEG, TIFF, BMP, WebP, AVIF, HEIC or .npy"

_MODES = {
    **dict.fromkeys(("1", "L", "I", "I;16", "I;16B", "I;16L", "F"), "grey: use a colour frame"),
    **dict.fromkeys(("LA", "La"), "grey with alpha: use a colour frame"),
    "RGBa": "RGB multiplied by alpha: flatten it",
    **dict.fromkeys(("P", "PA"), "a palette picture: convert it to RGB"),
}
"""Pillow's mode of a picture that is not RGB → its description and the remedy."""

_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 254, 258, 277


def read_frame(path: str | Path, *, max_pixels: int = MAX_PIXELS, as_stored: bool = False) -> Frame:
    """Read an RGB frame.

    Args:
        path: PNG, JPEG, TIFF, BMP, WebP, AVIF or HEIC of 8 bits; PNG or TIFF of 16 bits; or ``.npy`` of the returned
            shape and dtypes. Pictures are turned upright by their EXIF orientation, and opaque alpha is dropped.
        max_pixels: Largest H·W; the header is checked before anything is decoded.
        as_stored: Return the stored values, for linear frames. False: a picture that declares a colour space is
            converted to sRGB, see ``colour``.

    Returns:
        (H, W, 3), C-contiguous: uint8 or uint16 of full range, or float32 in [0, 1].

    Raises:
        CCNetError: The file is not a whole file of these formats, does not have three channels, has many pages, a side
            under 16 px or too many pixels, floats that are not finite or not in [0, 1], or a colour space that cannot
            be converted to sRGB.
    """
    path = Path(path)
    kind = picture_kind(path, read_head(path, "an RGB frame"))
    with decode_errors_as(
        path, f"a whole {kind.upper()} file of 8 or 16 bits" if kind != "npy" else "a whole .npy array"
    ):
        return _read_npy(path, max_pixels) if kind == "npy" else _read_picture(path, kind, max_pixels, as_stored)


def describe_colour(path: Path) -> str:
    """Return the colour space that a frame's file declares, and what becomes of it, for a cube's metadata."""
    kind = picture_kind(path, read_head(path, "an RGB frame"))
    if kind == "npy":
        return "sRGB (assumed)"
    with decode_errors_as(path, f"a whole {kind.upper()} file"), open_picture(path, kind, MAX_PIXELS) as image:
        return declared_colour(path, image).describe()


def picture_kind(path: Path, head: bytes) -> str:
    """Return the format of a file, a key of ``_CLASSES`` or ``npy``; CCNetError if its first bytes are of none."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    raise CCNetError(f"{path}: not one of {_FORMATS} (it starts with {head[:8]!r}); convert it")


def frame_paths(files_and_folders: Iterable[Path], suffixes: Sequence[str] = FRAME_SUFFIXES) -> list[Path]:
    """Return paths of frames, with a folder replaced by its frames, sorted; CCNetError where there is no frame."""
    paths: list[Path] = []
    for path in files_and_folders:
        found = visible_files(path, suffixes) if path.is_dir() else [path]
        if not found:
            raise CCNetError(f"{path}: holds no frame, expected one of {', '.join(suffixes)}")
        paths += found
    if not paths:
        raise CCNetError("no frames, expected at least one: name frames, or a folder of frames, with --frames")
    return paths


def result_names(frames: Sequence[Path]) -> list[str]:
    """Return the name of each frame's results: its stem, or its whole file name where frames share a stem."""
    stems = Counter(path.stem.lower() for path in frames)  # in lower case, as some disks know no other
    return [path.stem if stems[path.stem.lower()] == 1 else path.name for path in frames]


def is_picture(path: Path) -> bool:
    """Return whether a file's suffix or first bytes are those of a frame."""
    if path.suffix.lower() in FRAME_SUFFIXES:
        return True
    with path.open("rb") as file:
        head = file.read(16)
    return head[:2] != b"BM" and _is_known(path, head)


def _is_known(path: Path, head: bytes) -> bool:
    try:
        return bool(picture_kind(path, head))
    except CCNetError:
        return False


def rgb_tensor(pixels_HWC: npt.NDArray[Any], input: str, dtype: np.dtype[Any] | None = None) -> npt.NDArray[Any]:
    """Convert pixels, or their means, to a graph's tensor ``rgb``.

    Args:
        pixels_HWC: (H, W, 3), in the scale of a frame's dtype.
        input: The manifest's ``input``, ``uint8`` or ``float32``.
        dtype: The frame's dtype, which defines the scale; None is the dtype of the pixels.

    Returns:
        (1, H, W, 3) uint8 for ``uint8``, (1, 3, H, W) float32 in [0, 1] for ``float32``.
    """
    if input == "uint8":
        pixels = pixels_HWC if pixels_HWC.dtype == np.uint8 else np.rint(pixels_HWC).astype(np.uint8)
        return np.ascontiguousarray(pixels[None])
    rgb = np.divide(pixels_HWC, FRAME_SCALE[(dtype or pixels_HWC.dtype).name], dtype=np.float32)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])


def block_mean(frame_HWC: Frame, factor: int) -> npt.NDArray[Any]:
    """Reduce a frame by the means of square blocks; blocks at the edges can be smaller.

    Works on one row of blocks at a time, so that it takes little memory beside the frame.

    Args:
        frame_HWC: (H, W, 3).
        factor: Side of a block, px.

    Returns:
        (ceil(H / factor), ceil(W / factor), 3) float32 in the frame's scale; the frame itself for factor 1.
    """
    if factor == 1:
        return frame_HWC
    height, width = frame_HWC.shape[:2]
    lefts = np.arange(0, width, factor)
    widths = np.diff(lefts, append=width)[:, None]
    means = np.empty((-(-height // factor), lefts.size, 3), np.float32)
    for row, mean in enumerate(means):
        lines = frame_HWC[row * factor : (row + 1) * factor]
        mean[...] = np.add.reduceat(lines.sum(axis=0, dtype=np.float64), lefts) / (len(lines) * widths)
    return means


def _read_npy(path: Path, max_pixels: int) -> Frame:
    mapped = map_npy(path)
    if mapped.ndim != 3 or mapped.shape[2] != 3 or mapped.dtype.name not in FRAME_SCALE:
        raise CCNetError(
            f"{path}: {mapped.dtype} with shape {mapped.shape}, expected (H, W, 3) in {', '.join(FRAME_SCALE)}"
        )
    check_size(path, mapped.shape[0], mapped.shape[1], max_pixels)
    frame: Frame = np.array(mapped, mapped.dtype.newbyteorder("="), order="C")
    if frame.dtype == np.float32:
        low, high = frame.min(), frame.max()
        if not np.isfinite([low, high]).all():
            raise CCNetError(f"{path}: holds NaN or infinite values, expected float32 in [0, 1]; mask them")
        if low < 0 or high > 1:
            raise CCNetError(f"{path}: values from {low:g} to {high:g}, expected float32 in [0, 1]; scale them")
    return frame


@contextmanager
def open_picture(path: Path, kind: str, max_pixels: int) -> Iterator[Any]:
    """Open a picture by the class of its format, and check its size before anything is decoded.

    Args:
        path: The file.
        kind: Format, see ``picture_kind``.
        max_pixels: Largest H·W.

    Yields:
        Pillow's image.
    """
    # The format's own class, for Image.open caps the size globally and makes a phone's two-picture JPEG an MPO
    module, name = _CLASSES[kind]
    with prefix_errors(path):
        opened = getattr(optional_module(module, "heic" if kind == "Heif" else "cli"), name)
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # Pillow warns about metadata that is not used here
        if kind == "WebP":  # its class takes memory for the canvas at once
            check_size(path, *_webp_size(path, file.read(30)), max_pixels)
            file.seek(0)
        image = opened(file)
        check_size(path, image.height, image.width, max_pixels)
        yield image


def _webp_size(path: Path, head: bytes) -> tuple[int, int]:
    """Return height and width from the first chunk of a WebP file."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if head[12:16] == b"VP8 ":
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return height, width
    raise CCNetError(f"{path}: damaged, its first chunk is {head[12:16]!r}, expected a whole WebP file")


def _read_picture(path: Path, kind: str, max_pixels: int, as_stored: bool) -> Frame:
    with open_picture(path, kind, max_pixels) as image:
        tags = getattr(image, "tag_v2", {})
        _check_picture(path, image, tags)
        deep = ";16" in str(image.tile) or 16 in tags.get(_BITS_PER_SAMPLE, ())
        colour = None if as_stored else declared_colour(path, image)
        upright = _without_alpha(path, optional_module("PIL.ImageOps").exif_transpose(image))  # loads all: it is whole
        frame: Frame = np.array(colour.to_srgb(path, upright, deep) if colour else upright)
    return _read_deep(path, frame) if deep else frame


def _without_alpha(path: Path, image: Any) -> Any:
    """Return an RGB picture of one whose alpha is opaque everywhere; CCNetError if something shows through."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        raise CCNetError(f"{path}: RGB with alpha that is not opaque, expected RGB; flatten it")
    return rgba.convert("RGB")


def _read_deep(path: Path, high_bytes: Frame) -> Frame:
    """Return the 16-bit pixels: Pillow decodes high bytes only, OpenCV all, but also from half a file."""
    cv2 = optional_module("cv2")
    # With these flags OpenCV turns the picture upright; IMREAD_UNCHANGED would do so for TIFF but not for PNG.
    with native_messages():
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None or pixels.dtype != np.uint16 or not np.array_equal(pixels[..., ::-1] >> 8, high_bytes):
        raise CCNetError(f"{path}: a 16-bit layout that decoders disagree about; save it as a plain 16-bit PNG")
    return np.ascontiguousarray(pixels[..., ::-1])


def check_size(path: Path, height: int, width: int, max_pixels: int) -> None:
    """Raise CCNetError unless each side has at least 16 px and the frame at most ``max_pixels``."""
    if min(height, width) < SIZE_MULTIPLE:
        raise CCNetError(f"{path}: {width}×{height} px is too small, expected at least {SIZE_MULTIPLE} px a side")
    if height * width > max_pixels:
        raise CCNetError(
            f"{path}: {width}×{height} px is too large, expected at most {max_pixels / 1e6:g} million pixels; crop it"
        )


def _check_picture(path: Path, image: Any, tags: Any) -> None:
    """Raise CCNetError unless a picture is RGB, of one page, and not the preview in a camera's raw file."""
    if image.mode not in ("RGB", "RGBA"):
        what = _MODES.get(image.mode, f"a {image.mode} picture: convert it to RGB")
        raise CCNetError(f"{path}: mode {image.mode}, expected RGB; it is {what}")
    if tags.get(_SAMPLES_PER_PIXEL, len(image.getbands())) != len(image.getbands()):
        raise CCNetError(f"{path}: RGB with a fourth channel, expected RGB; flatten it")
    if getattr(image, "is_animated", False):
        raise CCNetError(f"{path}: animated or of many pages, expected one picture; extract one")
    if tags.get(_NEW_SUBFILE_TYPE, 0) & 1:
        raise CCNetError(f"{path}: holds a preview, expected a full picture; a raw file must end in .dng or the like")
