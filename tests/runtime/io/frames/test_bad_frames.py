"""Files that are not frames give a one-line error."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import read_frame
from tests.runtime.io.frames.frame_files import EVERY, chunk, encoded, pillow, pixels, refusal


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """Return a PNG of this size without pixels."""
    ihdr = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def npy_header(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


RGB8 = Image.fromarray(pixels("uint8"))
GREY16 = Image.fromarray(pixels("uint16")[..., 0])
SEE_THROUGH = RGB8.convert("RGBA")
SEE_THROUGH.putpixel((3, 2), (1, 2, 3, 254))
FRAMES = [Image.new("RGB", (20, 20), c) for c in ("red", "green")]
ALPHA16 = np.concatenate([pixels("uint16"), pixels("uint16")[..., :1]], -1)


def tagged(**tags: int) -> TiffImagePlugin.ImageFileDirectory_v2:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name.removeprefix("t"))] = value
    return info


PICTURES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "empty": (lambda: b"", ("empty",)),
    "text": (lambda: b"hello\nworld", ("not one of PNG",)),
    "one byte": (lambda: b"B", ("not one of PNG",)),
    "pickle": (lambda: b"\x80\x04\x95\x10\x00", ("not one of PNG",)),
    "gif": (lambda: pillow(RGB8, "GIF"), ("not one of PNG", "GIF8")),
    "wav": (lambda: b"RIFF" + bytes(4) + b"WAVEfmt ", ("not one of PNG", "RIFF")),
    "transparent webp": (lambda: pillow(SEE_THROUGH, "WEBP", lossless=True), ("alpha", "flatten")),
    "transparent avif": (lambda: pillow(Image.new("RGBA", (64, 64), (9, 8, 7, 128)), "AVIF"), ("alpha", "flatten")),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(20), ("pillow_heif", '".[heic]"')),
    "webp bomb": (lambda: b"RIFF" + bytes(4) + b"WEBPVP8L" + bytes(5) + b"\xff" * 4, ("16384×16384", "too large")),
    "ppm": (lambda: pillow(RGB8, "PPM"), ("not one of PNG",)),
    "grey png": (lambda: pillow(RGB8.convert("L"), "PNG"), ("grey",)),
    "grey jpeg": (lambda: pillow(RGB8.convert("L"), "JPEG"), ("grey",)),
    "black and white": (lambda: pillow(RGB8.convert("1"), "PNG"), ("grey",)),
    "deep grey png": (lambda: pillow(GREY16, "PNG"), ("grey",)),
    "deep grey tiff": (lambda: pillow(GREY16, "TIFF"), ("grey",)),
    "float grey tiff": (lambda: pillow(RGB8.convert("F"), "TIFF"), ("grey",)),
    "grey with alpha": (lambda: pillow(RGB8.convert("LA"), "PNG"), ("grey", "alpha")),
    "rgba png": (lambda: pillow(SEE_THROUGH, "PNG"), ("alpha", "flatten")),
    "rgba tiff": (lambda: pillow(SEE_THROUGH, "TIFF"), ("alpha", "flatten")),
    "deep rgba png": (lambda: bytes(cv2.imencode(".png", ALPHA16)[1]), ("alpha", "flatten")),
    "transparent colour": (lambda: pillow(RGB8, "PNG", transparency=RGB8.getpixel((3, 2))), ("alpha", "flatten")),
    "fourth channel": (lambda: pillow(RGB8.convert("RGBX"), "TIFF"), ("fourth channel",)),
    "palette png": (lambda: pillow(RGB8.convert("P"), "PNG"), ("palette",)),
    "palette bmp": (lambda: pillow(RGB8.convert("P"), "BMP"), ("palette",)),
    "cmyk jpeg": (lambda: pillow(RGB8.convert("CMYK"), "JPEG"), ("CMYK",)),
    "cmyk tiff": (lambda: pillow(RGB8.convert("CMYK"), "TIFF"), ("CMYK",)),
    "lab tiff": (lambda: pillow(RGB8.convert("LAB"), "TIFF"), ("LAB",)),
    "animated png": (lambda: pillow(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), ("animated",)),
    "pages": (lambda: pillow(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), ("pages",)),
    "raw preview": (lambda: pillow(RGB8, "TIFF", tiffinfo=tagged(t254=1)), ("preview",)),
    "one pixel": (lambda: pillow(Image.new("RGB", (1, 1)), "PNG"), ("1×1", "16")),
    "thin": (lambda: pillow(Image.new("RGB", (400, 15)), "JPEG"), ("400×15", "16")),
    "png bomb": (lambda: png_header(30_000, 30_000), ("30000×30000", "too large")),
    "deep png bomb": (lambda: png_header(30_000, 30_000, bits=16), ("30000×30000", "too large")),
    "giant png": (lambda: png_header(2**31 - 1, 2**31 - 1), ("too large",)),
    "no pixels": (lambda: png_header(64, 64), ("truncated",)),
    "header only": (lambda: encoded(pixels("uint8"), "png")[:8], ("damaged",)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_invalid_picture_is_refused(tmp_path: Path, name: str) -> None:
    make, words = PICTURES[name]
    path = tmp_path / "bad.bin"
    path.write_bytes(make())
    refusal(path, *words)


@pytest.mark.parametrize(("format", "dtype"), EVERY, ids=" ".join)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_truncated_frame_is_refused(tmp_path: Path, format: str, dtype: str, kept: float) -> None:
    data = encoded(pixels(dtype, 64, 64), format)
    path = tmp_path / f"half.{format}"
    path.write_bytes(data[: int(len(data) * kept)])
    refusal(path, "truncated")


def npy(array: Any, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        np.save(file, array, **options)
        return file.getvalue()

    return make


def spoiled(value: float) -> Callable[[], bytes]:
    array = pixels("float32")
    array[3, 4, 1] = value
    return npy(array)


SHAPE = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
ARRAYS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "nan": (spoiled(np.nan), ("NaN",)),
    "infinite": (spoiled(np.inf), ("infinite",)),
    "negative": (spoiled(-0.1), ("[0, 1]",)),
    "above one": (spoiled(255), ("[0, 1]", "255")),
    "float64": (npy(pixels("float32").astype(float)), ("float64", "float32")),
    "int32": (npy(pixels("uint8").astype("i4")), ("int32",)),
    "bool": (npy(pixels("uint8") > 9), ("bool",)),
    "channels first": (npy(pixels("uint8").transpose(2, 0, 1)), ("(3, 20, 36)", "(H, W, 3)")),
    "grey": (npy(pixels("uint8")[..., 0]), ("(20, 36)", "(H, W, 3)")),
    "batch": (npy(pixels("uint8")[None]), ("(H, W, 3)",)),
    "scalar": (npy(np.float32(1)), ("(H, W, 3)",)),
    "nothing": (npy(np.zeros((0, 0, 3), "u1")), ()),
    "small": (npy(pixels("uint8", 15, 15)), ("15×15",)),
    "objects": (npy(np.array([[{}]], object), allow_pickle=True), ("object",)),
    "records": (npy(np.zeros((20, 20, 3), [("a", "u1")])), ("expected",)),
    "claims terabytes": (lambda: npy_header(SHAPE % "(1000000, 1000000, 3)", b"\0" * 99), ("truncated",)),
    "claims more than 2**64": (lambda: npy_header(SHAPE % f"({2**40}, {2**40}, 3)", b"\0" * 99), ()),
    "negative shape": (lambda: npy_header(SHAPE % "(-20, -20, 3)", b"\0" * 9999), ()),
    "code in the header": (lambda: npy_header("__import__('os').getcwd()"), ("damaged",)),
    "no header": (lambda: b"\x93NUMPY\x01\x00", ("damaged",)),
    "unknown version": (lambda: b"\x93NUMPY\x09\x00" + bytes(200), ("damaged",)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_invalid_array_is_refused(tmp_path: Path, name: str) -> None:
    make, words = ARRAYS[name]
    path = tmp_path / "bad.npy"
    path.write_bytes(make())
    refusal(path, *words)


@pytest.mark.parametrize(("format", "dtype"), EVERY, ids=" ".join)
def test_mutated_bytes_raise_only_ccnet_errors(tmp_path: Path, format: str, dtype: str) -> None:
    rng = np.random.default_rng(7)
    good = encoded(pixels(dtype), format)
    path = tmp_path / "fuzz"
    for _ in range(60):
        path.write_bytes(mutated(good, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                frame = read_frame(path)
            except CCNetError as error:
                assert "\n" not in str(error)
                assert str(path) in str(error)
            else:
                assert frame.ndim == 3
                assert frame.shape[2] == 3


def mutated(good: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with some flipped, overwritten or cut off; in half of the calls in the header."""
    data = bytearray(good)
    end = min(len(data), 128) if rng.integers(2) else len(data)
    for at in rng.integers(end, size=rng.integers(1, 6)):
        data[at] = rng.choice([0, 1, 127, 255, data[at] ^ 1 << rng.integers(8)])
    return bytes(data[: rng.integers(1, len(data))] if rng.integers(4) == 0 else data)
