"""Frames: exact pixels from every good file, and the limits of a file."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime.io import files
from ccnet.runtime.io.frames import read_frame
from tests.runtime.io.frames.frame_files import GOOD, encoded, pillow, pixels, refusal


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


def test_format_is_decided_by_content_not_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.npy"
    path.write_bytes(encoded(pixels("uint8"), "png"))
    assert read_frame(path).shape == (20, 36, 3)


def test_phones_jpeg_with_a_second_picture_gives_the_first(tmp_path: Path) -> None:
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


def test_missing_file_directory_and_long_name_are_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "nobody.png", "no such file")
    refusal(tmp_path, "directory")
    refusal(tmp_path / ("x" * 300 + ".png"))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions and pipes")
def test_unreadable_file_and_pipe_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_frame_beyond_pillows_own_limit_is_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path, rgb = tmp_path / "f.png", pixels("uint8")
    path.write_bytes(encoded(rgb, "png"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_frame(path), rgb)


def test_photograph_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(CCNetError, match=r'pip install "\.\[cli\]"'):
        read_frame(path)
    files.optional_module.cache_clear()
