"""Frames as encoded files for the tests."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import read_frame

Pixels = npt.NDArray[Any]
GOOD = [(f, d) for f in ("png", "tiff", "npy") for d in ("uint8", "uint16")] + [("bmp", "uint8"), ("npy", "float32")]
EVERY = [*GOOD, ("jpg", "uint8")]


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


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def refusal(path: Path, *words: str, **options: Any) -> None:
    """Check that reading raises a one-line error with the file and these words, and no warning."""
    with warnings.catch_warnings(), pytest.raises(CCNetError) as caught:
        warnings.simplefilter("error")
        read_frame(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    for word in (str(path), *words):
        assert word in message
