"""Pixel formats of cameras: pixels out of buffers, and formats that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.sources.pixel_formats import PixelFormat
from ccnet.runtime.stream.sources.source import SourceOptions

RGB = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
OPAQUE = np.full((3, 5, 1), 255, np.uint8)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("name", "buffer"),
    [
        ("RGB8", RGB),
        ("RGB8Packed", RGB),
        ("BGR8", RGB[..., ::-1]),
        ("RGBa8", np.concatenate([RGB, OPAQUE], 2)),
        ("BGRA8Packed", np.concatenate([RGB[..., ::-1], OPAQUE], 2)),
        ("BGR12", RGB[..., ::-1].astype("<u2")),
    ],
)
def test_colour_is_read_as_rgb(name: str, buffer: np.ndarray, padding: int) -> None:
    bits = 12 if buffer.dtype == np.uint16 else 8
    pixels = PixelFormat.find(name, SourceOptions(bits=bits), (name,)).decode(padded(buffer, padding), 3, 5, padding)
    assert pixels.dtype == buffer.dtype
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize(
    ("name", "bits", "bayer"),
    [
        ("BayerRG8", 8, "RGGB"),
        ("BayerGR10", 10, "GRBG"),
        ("BayerGB12", 12, "GBRG"),
        ("BayerBG16", 16, "BGGR"),
        ("Mono8", 8, "BGGR"),
        ("Mono16", 16, "RGGB"),
    ],
)
def test_sensor_samples_stay_as_they_are(name: str, bits: int, bayer: str) -> None:
    samples = np.random.default_rng(0).integers(0, 1 << bits, (4, 6)).astype("u1" if bits == 8 else "<u2")
    pixels = PixelFormat.find(name, SourceOptions(bits=bits, bayer=bayer), (name,)).decode(padded(samples, 2), 4, 6, 2)
    assert pixels.dtype == samples.dtype and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, samples)


def padded(buffer: np.ndarray, padding: int) -> bytes:
    """Return a buffer with bytes after each row, and more after the last."""
    rows = [np.ascontiguousarray(row).tobytes() + b"\xaa" * padding for row in buffer]
    return b"".join([*rows, b"chunk data"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("YUV422_8", SourceOptions(), "PixelFormat is YUV422_8, expected RGB8, BGR8"),
        ("BayerRG12Packed", SourceOptions(bits=12, bayer="RGGB"), "PixelFormat is BayerRG12Packed, expected RGB8"),
        ("Mono12p", SourceOptions(bits=12, bayer="RGGB"), "PixelFormat is Mono12p, expected RGB8"),
        ("BayerGB8", SourceOptions(), '--radiometry with {"bits": 8, "bayer": "GBRG"}'),
        ("Mono12", SourceOptions(), "PixelFormat is Mono12, one sample a pixel, expected R, G and B"),
        ("RGB8", SourceOptions(bayer="RGGB"), 'PixelFormat is RGB8, but --radiometry has "bayer": "RGGB"'),
        ("BayerBG8", SourceOptions(bayer="RGGB"), 'has "bayer": "RGGB", expected BGGR'),
        ("BayerRG12", SourceOptions(bayer="RGGB"), 'expected 8 bits: set "bits": 12 in --radiometry'),
    ],
)
def test_other_formats_are_refused_by_name(name: str, options: SourceOptions, words: str) -> None:
    with pytest.raises(CCNetError) as refusal:
        PixelFormat.find(name, options, ("RGB8",))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "offered", "words"),
    [
        ("Mono8", ("Mono8", "Mono12p", "RGB12", "BGRa8", "BGR8"), "or set ?PixelFormat=BGRa8 or BGR8"),
        ("Mono8", ("Mono8", "YUV422_8", "RGB12"), "or take a camera with a colour format"),
        ("YUV422_8", ("YUV422_8", "Mono8", "BayerRG8"), "set it after a '?', as in ?PixelFormat=Mono8 or BayerRG8"),
        ("YUV422_8", ("YUV422_8",), "16 bits: the camera has none of them"),
    ],
)
def test_advice_is_a_format_that_the_camera_has(name: str, offered: tuple[str, ...], words: str) -> None:
    with pytest.raises(CCNetError) as refusal:
        PixelFormat.find(name, SourceOptions(), offered)
    assert str(refusal.value).endswith(words)


@pytest.mark.parametrize(("height", "width"), [(3, 5), (0, 5)])
def test_buffer_too_small_for_its_frame_is_damaged(height: int, width: int) -> None:
    found = PixelFormat.find("RGB8", SourceOptions(), ("RGB8",))
    with pytest.raises(CCNetError, match="a buffer has 44 bytes, a RGB8 frame of 5x"):
        found.decode(bytes(44), height, width)
