"""Frames come out upright, whatever the orientation in their metadata."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccnet.runtime.io.frames import read_frame
from tests.runtime.io.frames.frame_files import Pixels, chunk, encoded, pillow, pixels, refusal

ORIENTATION = 274


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def upright(rgb: Pixels, orientation: int) -> Pixels:
    """Return the pixels turned as EXIF 2.3 defines for an orientation."""
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
    mirrored = rgb[:, ::-1] if orientation in (2, 4) else rgb[::-1] if orientation in (5, 7) else rgb
    return np.rot90(mirrored, turns[orientation])


def deep_tiff(rgb: Pixels, tags: dict[int, int], planar: bool = False) -> bytes:
    """Return a little-endian TIFF with an uncompressed 16-bit strip, or a strip for each channel if planar."""
    height, width, samples = rgb.shape
    strips = samples if planar else 1
    body = np.ascontiguousarray(rgb.transpose(2, 0, 1) if planar else rgb, "<u2").tobytes()
    tags = {254: 0, 256: width, 257: height, 259: 1, 262: 2, 277: samples, 278: height, 284: 1 + planar, **tags}
    size = len(body) // strips
    tables = {
        258: ("H", [16] * samples),
        273: ("I", [8 + i * size for i in range(strips)]),
        279: ("I", [size] * strips),
    }
    after = 8 + len(body) + 2 + 12 * (len(tags) + len(tables)) + 4
    entries, extra = [], b""
    for tag in sorted({*tags, *tables}):
        code, values = tables.get(tag, ("I", [tags.get(tag, 0)]))
        data = struct.pack(f"<{len(values)}{code}", *values)
        if len(data) > 4:
            data, extra = struct.pack("<I", after + len(extra)), extra + data
        entries.append(struct.pack("<HHI", tag, {"H": 3, "I": 4}[code], len(values)) + data.ljust(4, b"\0"))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + extra


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_upright(tmp_path: Path, orientation: int, compression: str) -> None:
    path, rgb = tmp_path / "o.tif", pixels("uint8")
    path.write_bytes(pillow(Image.fromarray(rgb), "TIFF", compression=compression, tiffinfo={ORIENTATION: orientation}))
    np.testing.assert_array_equal(read_frame(path), upright(rgb, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_is_upright(tmp_path: Path, orientation: int, dtype: str) -> None:
    path, rgb = tmp_path / "o.png", pixels(dtype)
    data = encoded(rgb, "png")
    path.write_bytes(data[:33] + chunk(b"eXIf", exif(orientation)[6:]) + data[33:])
    np.testing.assert_array_equal(read_frame(path), upright(rgb, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiff_is_upright(tmp_path: Path, orientation: int) -> None:
    path, rgb = tmp_path / "o.tif", pixels("uint16")
    path.write_bytes(deep_tiff(rgb, {ORIENTATION: orientation}))
    np.testing.assert_array_equal(read_frame(path), upright(rgb, orientation))


def test_jpeg_is_upright(tmp_path: Path) -> None:
    path, stored = tmp_path / "o.jpg", Image.fromarray(pixels("uint8"))
    path.write_bytes(pillow(stored, "JPEG", exif=exif(6)))
    plain = np.asarray(Image.open(io.BytesIO(pillow(stored, "JPEG"))))
    np.testing.assert_array_equal(read_frame(path), upright(plain, 6))


def test_deep_tiff_with_separate_channels_is_refused(tmp_path: Path) -> None:
    """Decoders disagree about this layout."""
    path = tmp_path / "planar.tif"
    path.write_bytes(deep_tiff(pixels("uint16"), {}, planar=True))
    refusal(path, "16-bit", "PNG")
