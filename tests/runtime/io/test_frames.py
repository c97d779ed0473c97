"""Frames: exact pixels from every good file, one clear line for every bad one."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from ccnet.contract import CCNetError
from ccnet.runtime.io import files
from ccnet.runtime.io.frames import read_frame

Pixels = npt.NDArray[Any]
ORIENTATION = 274


def pixels(dtype: str, height: int = 20, width: int = 36, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.random((height, width, 3), np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


def pillow(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def encoded(rgb: Pixels, format: str) -> bytes:
    if format == "npy":
        file = io.BytesIO()
        np.save(file, rgb)
        return file.getvalue()
    return bytes(cv2.imencode(f".{format}", np.ascontiguousarray(rgb[..., ::-1]))[1])


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of this size whose pixels are not there."""
    ihdr = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def npy_header(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def refusal(path: Path, *words: str, **options: Any) -> None:
    """Reading fails with one line that names the file and says these words; nothing else comes out."""
    with warnings.catch_warnings(), pytest.raises(CCNetError) as caught:
        warnings.simplefilter("error")
        read_frame(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    for word in (str(path), *words):
        assert word in message


# --- good files


GOOD = [(f, d) for f in ("png", "tiff", "npy") for d in ("uint8", "uint16")] + [("bmp", "uint8"), ("npy", "float32")]
EVERY = [*GOOD, ("jpg", "uint8")]


@given(st.sampled_from(GOOD), st.integers(16, 40), st.integers(16, 40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_lossless_files_give_their_pixels(case: tuple[str, str], height: int, width: int, seed: int) -> None:
    format, dtype = case
    rgb = pixels(dtype, height, width, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame"
        path.write_bytes(encoded(rgb, format))
        frame = read_frame(path)
    assert frame.dtype == rgb.dtype
    assert frame.flags.c_contiguous
    assert frame.flags.writeable
    np.testing.assert_array_equal(frame, rgb)


def test_photograph_as_jpeg_equals_its_decoder(tmp_path: Path) -> None:
    photograph = pytest.importorskip("skimage.data").astronaut()
    path = tmp_path / "photo.JPG"
    path.write_bytes(pillow(Image.fromarray(photograph), "JPEG", quality=95))
    frame = read_frame(path)
    np.testing.assert_array_equal(frame, np.asarray(Image.open(path)))
    assert np.abs(frame.astype(int) - photograph).mean() < 3


def test_the_suffix_decides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.npy"
    path.write_bytes(encoded(pixels("uint8"), "png"))
    assert read_frame(path).shape == (20, 36, 3)


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


def test_a_phones_jpeg_with_a_second_picture_gives_the_first(tmp_path: Path) -> None:
    path, first = tmp_path / "phone.jpg", Image.fromarray(pixels("uint8"))
    path.write_bytes(pillow(first, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))]))
    assert Image.open(path).format == "MPO"
    np.testing.assert_array_equal(read_frame(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("layout", [">u2", "<u2", ">f4"])
def test_npy_of_any_order_comes_out_native(tmp_path: Path, layout: str) -> None:
    rgb = pixels("uint16") if "u" in layout else pixels("float32")
    path = tmp_path / "f.npy"
    np.save(path, np.asfortranarray(rgb.astype(layout)))
    frame = read_frame(path)
    assert frame.flags.c_contiguous
    assert frame.dtype.isnative
    np.testing.assert_array_equal(frame, rgb)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def upright(rgb: Pixels, orientation: int) -> Pixels:
    """EXIF 2.3, orientation: where the picture's row 0 and column 0 are shown."""
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
    mirrored = rgb[:, ::-1] if orientation in (2, 4) else rgb[::-1] if orientation in (5, 7) else rgb
    return np.rot90(mirrored, turns[orientation])


def deep_tiff(rgb: Pixels, tags: dict[int, int], planar: bool = False) -> bytes:
    """A little-endian TIFF of one uncompressed 16-bit strip; planar stores the channels one after the other."""
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


# --- bad files


RGB8 = Image.fromarray(pixels("uint8"))
GREY16 = Image.fromarray(pixels("uint16")[..., 0])
FRAMES = [Image.new("RGB", (20, 20), c) for c in ("red", "green")]
ALPHA16 = np.concatenate([pixels("uint16"), pixels("uint16")[..., :1]], -1)


def tagged(**tags: int) -> TiffImagePlugin.ImageFileDirectory_v2:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name.removeprefix("t"))] = value
    return info


PICTURES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "empty": (lambda: b"", ("empty",)),
    "text": (lambda: b"hello\nworld", ("not a PNG",)),
    "one byte": (lambda: b"B", ("not a PNG",)),
    "pickle": (lambda: b"\x80\x04\x95\x10\x00", ("not a PNG",)),
    "gif": (lambda: pillow(RGB8, "GIF"), ("not a PNG", "GIF8")),
    "webp": (lambda: pillow(RGB8, "WEBP"), ("not a PNG", "RIFF")),
    "ppm": (lambda: pillow(RGB8, "PPM"), ("not a PNG",)),
    "grey png": (lambda: pillow(RGB8.convert("L"), "PNG"), ("grey",)),
    "grey jpeg": (lambda: pillow(RGB8.convert("L"), "JPEG"), ("grey",)),
    "black and white": (lambda: pillow(RGB8.convert("1"), "PNG"), ("grey",)),
    "deep grey png": (lambda: pillow(GREY16, "PNG"), ("grey",)),
    "deep grey tiff": (lambda: pillow(GREY16, "TIFF"), ("grey",)),
    "float grey tiff": (lambda: pillow(RGB8.convert("F"), "TIFF"), ("grey",)),
    "grey with alpha": (lambda: pillow(RGB8.convert("LA"), "PNG"), ("grey", "alpha")),
    "rgba png": (lambda: pillow(RGB8.convert("RGBA"), "PNG"), ("alpha", "flatten")),
    "rgba tiff": (lambda: pillow(RGB8.convert("RGBA"), "TIFF"), ("alpha", "flatten")),
    "deep rgba png": (lambda: bytes(cv2.imencode(".png", ALPHA16)[1]), ("alpha", "flatten")),
    "transparent colour": (lambda: pillow(RGB8, "PNG", transparency=(1, 2, 3)), ("alpha", "flatten")),
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
    "deep planar tiff": (lambda: deep_tiff(pixels("uint16"), {}, planar=True), ("16-bit", "PNG")),
}


@pytest.mark.parametrize("name", PICTURES)
def test_bad_pictures(tmp_path: Path, name: str) -> None:
    make, words = PICTURES[name]
    path = tmp_path / "bad.bin"
    path.write_bytes(make())
    refusal(path, *words)


@pytest.mark.parametrize(("format", "dtype"), EVERY, ids=" ".join)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_truncated(tmp_path: Path, format: str, dtype: str, kept: float) -> None:
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
def test_bad_arrays(tmp_path: Path, name: str) -> None:
    make, words = ARRAYS[name]
    path = tmp_path / "bad.npy"
    path.write_bytes(make())
    refusal(path, *words)


def test_missing_directory_and_odd_names(tmp_path: Path) -> None:
    refusal(tmp_path / "nobody.png", "no such file")
    refusal(tmp_path, "directory")
    refusal(tmp_path / ("x" * 300 + ".png"))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions and pipes")
def test_unreadable_and_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    refusal(pipe, "no such file")  # and does not wait for a writer
    locked = tmp_path / "locked.png"
    locked.write_bytes(encoded(pixels("uint8"), "png"))

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    refusal(locked, "cannot be read", "Permission denied")


def test_max_pixels_is_a_limit_that_the_caller_sets(tmp_path: Path) -> None:
    for format in ("png", "npy"):
        path = tmp_path / f"f.{format}"
        path.write_bytes(encoded(pixels("uint8"), format))
        assert read_frame(path, max_pixels=20 * 36).shape == (20, 36, 3)
        refusal(path, "36×20", "too large", max_pixels=20 * 36 - 1)


def test_larger_than_pillows_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path, rgb = tmp_path / "f.png", pixels("uint8")
    path.write_bytes(encoded(rgb, "png"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_frame(path), rgb)


def test_a_photograph_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.png"
    path.write_bytes(encoded(pixels("uint8"), "png"))
    monkeypatch.setattr(cv2, "imdecode", None)
    assert read_frame(path).dtype == np.uint8


@pytest.mark.parametrize(("module", "dtype"), [("PIL.PngImagePlugin", "uint8"), ("cv2", "uint16")])
def test_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, dtype: str
) -> None:
    path = tmp_path / "f.png"
    path.write_bytes(encoded(pixels(dtype), "png"))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    files.optional_module.cache_clear()
    with pytest.raises(CCNetError, match=r"ccnet-hsi\[cli\]"):
        read_frame(path)
    files.optional_module.cache_clear()


@pytest.mark.parametrize(("format", "dtype"), EVERY, ids=" ".join)
def test_mutated_bytes_raise_nothing_else(tmp_path: Path, format: str, dtype: str) -> None:
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
    """Bytes with some flipped, overwritten or cut; half of the time where the header is."""
    data = bytearray(good)
    end = min(len(data), 128) if rng.integers(2) else len(data)
    for at in rng.integers(end, size=rng.integers(1, 6)):
        data[at] = rng.choice([0, 1, 127, 255, data[at] ^ 1 << rng.integers(8)])
    return bytes(data[: rng.integers(1, len(data))] if rng.integers(4) == 0 else data)
