"""Colour spaces that pictures declare: converted to sRGB or refused, never read as sRGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, features

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import describe_colour, read_frame
from tests.runtime.io.frames.frame_files import pixels

RGB = Image.fromarray(pixels("uint8", 24, 40))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def matrix_profile(gamma: float, columns: tuple[tuple[float, float, float], ...]) -> bytes:
    """Return an ICC profile of a display: three primaries in XYZ (D50), and one gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(12 + 67)
    tags = {b"desc": text, b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    tags |= {
        name: b"XYZ " + bytes(4) + fixed(*xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI", size, bytes(4), 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return (head + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


ADOBE = matrix_profile(2.2, ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)))
LINEAR = matrix_profile(1.0, ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)))


def save(path: Path, **options: Any) -> Path:
    RGB.save(path, **options)
    return path


@pytest.mark.parametrize("profile", [ADOBE, LINEAR], ids=["Adobe RGB", "linear"])
@pytest.mark.parametrize("format", ["png", "tiff", "jpg", "webp"])
def test_profile_is_converted_to_srgb(tmp_path: Path, format: str, profile: bytes) -> None:
    options = {"lossless": True} if format == "webp" else {}
    path = save(tmp_path / f"a.{format}", icc_profile=profile, **options)
    stored = read_frame(path, as_stored=True)
    expected = ImageCms.profileToProfile(
        Image.fromarray(stored),
        ImageCms.ImageCmsProfile(__import__("io").BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
    )
    np.testing.assert_array_equal(read_frame(path), np.asarray(expected))
    assert np.abs(read_frame(path).astype(int) - stored).max() > 20
    assert describe_colour(path) == "ICC profile wide, converted to sRGB"


def test_linear_profile_agrees_with_the_formula_of_srgb(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", icc_profile=LINEAR)
    light = np.asarray(RGB) / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(read_frame(path), expected, atol=2.5)


@pytest.mark.parametrize("format", ["png", "tiff", "jpg"])
def test_profile_of_srgb_changes_nothing(tmp_path: Path, format: str) -> None:
    path = save(tmp_path / f"a.{format}", icc_profile=SRGB)
    np.testing.assert_array_equal(read_frame(path), read_frame(path, as_stored=True))
    assert describe_colour(path).startswith("sRGB (ICC profile")


def chunks(**values: bytes) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for name, value in values.items():
        info.add(name.encode(), value)
    return info


BT709 = struct.pack(">8I", *(round(100000 * value) for value in (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)))
WIDE = struct.pack(">8I", *(round(100000 * value) for value in (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)))


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"gAMA": struct.pack(">I", 100000)}, "gAMA is 1"),
        ({"gAMA": struct.pack(">I", 45455), "cHRM": WIDE}, "other primaries"),
        ({"cHRM": WIDE}, "other primaries"),
        ({"cICP": bytes((9, 16, 0, 1))}, "cICP says"),
        ({"cICP": bytes((12, 13, 0, 1))}, "cICP says"),
    ],
    ids=["linear", "wide", "wide without gamma", "BT.2100", "Display P3"],
)
def test_colour_chunks_of_another_space_are_refused(tmp_path: Path, info: dict[str, bytes], reason: str) -> None:
    path = save(tmp_path / "a.png", pnginfo=chunks(**info))
    with pytest.raises(CCNetError, match=reason):
        read_frame(path)
    np.testing.assert_array_equal(read_frame(path, as_stored=True), np.asarray(RGB))


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"gAMA": struct.pack(">I", 45455)},
        {"gAMA": struct.pack(">I", 45455), "cHRM": BT709},
        {"sRGB": b"\0", "gAMA": struct.pack(">I", 100000)},  # the sRGB chunk takes precedence
        {"cICP": bytes((1, 13, 0, 1))},
    ],
)
def test_colour_chunks_of_srgb_change_nothing(tmp_path: Path, info: dict[str, bytes]) -> None:
    path = save(tmp_path / "a.png", pnginfo=chunks(**info))
    np.testing.assert_array_equal(read_frame(path), np.asarray(RGB))
    assert describe_colour(path).startswith("sRGB")


@pytest.mark.parametrize("profile", [b"junk", ADOBE[:100], b""], ids=["junk", "cut", "empty"])
def test_damaged_profile_is_refused(tmp_path: Path, profile: bytes) -> None:
    path = save(tmp_path / "a.tiff", icc_profile=profile)
    if not profile:  # which declares nothing
        assert describe_colour(path) == "sRGB (assumed)"
        return
    with pytest.raises(CCNetError, match="ICC profile is damaged"):
        read_frame(path)


def test_adobe_rgb_by_exif_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    path = save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(CCNetError, match="EXIF says Adobe RGB"):
        read_frame(path)


def test_16_bits_of_another_space_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), pixels("uint16", 24, 40))
    data = path.read_bytes()
    profile = zlib.compress(ADOBE)
    body = b"iCCP" + b"wide\0\0" + profile
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])
    with pytest.raises(CCNetError, match="16 bits in ICC profile wide"):
        read_frame(path)
    np.testing.assert_array_equal(read_frame(path, as_stored=True)[..., ::-1], cv2.imread(str(path), -1))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("codes", [(9, 16), (9, 18), (12, 13), (1, 8), (1, 16)])
def test_avif_of_another_space_is_refused(tmp_path: Path, codes: tuple[int, int]) -> None:
    path = tmp_path / "a.avif"
    Image.new("RGB", (32, 32), (200, 60, 40)).save(path)
    data = path.read_bytes()
    assert data.count(b"colrnclx") == 1
    assert describe_colour(path).startswith("sRGB")
    at = data.index(b"colrnclx") + 8
    path.write_bytes(data[:at] + struct.pack(">HH", *codes) + data[at + 4 :])
    with pytest.raises(
        CCNetError, match=rf"nclx says primaries and transfer \({codes[0]}, {codes[1]}\), expected sRGB"
    ):
        read_frame(path)
    assert read_frame(path, as_stored=True).shape == (32, 32, 3)
