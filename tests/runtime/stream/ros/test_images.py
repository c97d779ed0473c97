"""Images of ROS: pixels of every encoding, byte order and row padding; damaged messages are named."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import read_frame
from ccnet.runtime.io.mosaic import read_mosaic
from ccnet.runtime.stream.ros.images import compressed_pixels, image_fields, image_pixels

ORDERS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2, 3], "bgra": [2, 1, 0, 3]}


def message(samples_HWC: np.ndarray, encoding: str, *, big: bool = False, padding: int = 0) -> Any:
    """Return an image with some bytes of padding after each row."""
    height, width = samples_HWC.shape[:2]
    stored = samples_HWC.astype(samples_HWC.dtype.newbyteorder(">" if big else "<"))
    rows = np.pad(stored.reshape(height, -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=7)
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=int(big), step=rows.shape[1], data=rows.tobytes()
    )


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("bits", "big"), [(8, False), (16, False), (16, True)])
@pytest.mark.parametrize("name", [*ORDERS, "mono", "bayer_rggb", "bayer_bggr", "bayer_gbrg", "bayer_grbg"])
def test_pixels_of_every_encoding(name: str, bits: int, big: bool, padding: int) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    pixels = np.random.default_rng(0).integers(0, 1 << bits, (5, 7, 4), dtype)
    if name in ORDERS:
        found = image_pixels(message(pixels[..., ORDERS[name]], f"{name}{bits}", big=big, padding=padding))
        expected = pixels[..., :3]
    else:
        bayer = name.removeprefix("bayer_").upper() if name != "mono" else "RGGB"
        found = image_pixels(message(pixels[..., 0], f"{name}{bits}", big=big, padding=padding), bayer)
        expected = pixels[..., 0]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == dtype and found.dtype.isnative and found.flags.c_contiguous


def test_last_row_needs_no_padding() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image = message(pixels, "rgb8", padding=3)
    image.data = image.data[:-3]
    np.testing.assert_array_equal(image_pixels(image), pixels)


@pytest.mark.parametrize(
    ("changes", "bayer", "reason"),
    [
        ({"data": bytes(59)}, None, "has 59 bytes in rows of 15, expected 60 or more of 5×4 px rgb8"),
        ({"step": 14}, None, "in rows of 14, expected"),
        ({"height": 0}, None, "it is cut or damaged"),
        ({"height": (1 << 32) - 1, "width": (1 << 32) - 1}, None, "it is cut or damaged"),
        ({"encoding": "yuv422"}, None, "the encoding is 'yuv422', expected rgb, bgr"),
        ({"encoding": "8UC3"}, None, "the encoding is '8UC3', expected rgb, bgr"),
        ({"encoding": "rgb32"}, None, "the encoding is 'rgb32'"),
        ({"encoding": "8"}, None, "the encoding is '8'"),
        ({"encoding": ""}, None, "the encoding is ''"),
        ({"encoding": "bayer_grbg8"}, None, 'describe the sensor with --radiometry and "bayer": "GRBG"'),
        ({"encoding": "bayer_grbg8"}, "RGGB", "expected the pattern RGGB of --radiometry"),
        ({}, "RGGB", "the encoding is rgb8, expected bayer_* or mono"),
    ],
)
def test_damaged_and_unsupported_messages_are_named(changes: dict[str, Any], bayer: str | None, reason: str) -> None:
    image = message(np.zeros((4, 5, 3), np.uint8), "rgb8")
    vars(image).update(changes)
    with pytest.raises(CCNetError) as caught:
        image_pixels(image, bayer)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_compressed_images_are_decoded_by_the_frame_reader(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    for suffix in (".png", ".jpg"):
        path = tmp_path / f"picture{suffix}"
        cv2.imwrite(str(path), rgb)
        found = compressed_pixels(SimpleNamespace(data=np.fromfile(path, np.uint8)), read_frame)
        np.testing.assert_array_equal(found, read_frame(path))
    cv2.imwrite(str(tmp_path / "mosaic.png"), rgb[..., 0])
    mosaic = SimpleNamespace(data=(tmp_path / "mosaic.png").read_bytes())
    np.testing.assert_array_equal(compressed_pixels(mosaic, read_mosaic), rgb[..., 0])
    whole = (tmp_path / "picture.png").read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"depth"):
        with pytest.raises(CCNetError, match="the message's picture") as caught:
            compressed_pixels(SimpleNamespace(data=data), partial(read_frame, as_stored=True))
        assert "ccnet-" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "channels", "encoding"), [(np.uint8, 3, "rgb8"), (np.float32, 1, "32FC1"), (np.float32, 31, "32FC31")]
)
def test_fields_hold_every_sample(dtype: Any, channels: int, encoding: str) -> None:
    image = (255 * np.random.default_rng(0).random((4, 6, channels))).astype(dtype)
    fields = image_fields(image)
    assert (fields.encoding, fields.height, fields.width, fields.is_bigendian) == (encoding, 4, 6, 0)
    assert fields.step * 4 == fields.data.size and np.shares_memory(fields.data, image)
    np.testing.assert_array_equal(fields.data.view(dtype).reshape(image.shape), image)
