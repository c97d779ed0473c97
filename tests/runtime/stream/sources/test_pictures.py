"""Pictures and folders of them, which a stream reads as other commands do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import read_frame
from ccnet.runtime.stream.sources.parse import parse_source
from tests.runtime.io.cameras.dng_file import write_dng


def read_all(text: str, **options: str) -> list[tuple[str, np.ndarray]]:
    source = parse_source(text, **options).open()
    return list(iter(source.read, None))


@pytest.mark.parametrize("name", ["turned.jpg", "deep.png", "SHOUTING.PNG", "array.npy"])
def test_picture_is_read_as_everywhere_and_named_after_its_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(np.zeros((20, 36, 3), np.uint8)).save(path, exif=exif)
    elif name == "array.npy":
        np.save(path, np.zeros((20, 36, 3), np.float32))
    else:
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65535, (20, 36, 3)).astype(np.uint16))
    ((stem, pixels),) = read_all(str(path))
    assert stem == path.stem
    np.testing.assert_array_equal(pixels, read_frame(path))


def test_picture_without_a_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 36, 3), np.uint8)).save(tmp_path / "frame", "PNG")
    assert [name for name, _ in read_all(str(tmp_path / "frame"))] == ["frame"]


def test_pictures_with_one_stem_have_their_whole_names(tmp_path: Path) -> None:
    for name in ("a.png", "A.jpg", "b.png"):
        Image.fromarray(np.zeros((20, 36, 3), np.uint8)).save(tmp_path / name)
    assert [name for name, _ in read_all(str(tmp_path))] == ["A.jpg", "a.png", "b"]


@pytest.mark.parametrize("format", ["png", "tiff", "bmp", "npy"])
def test_bayer_pictures_are_read_as_recorded(tmp_path: Path, format: str) -> None:
    dtype = np.uint8 if format == "bmp" else np.uint16
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (20, 36)).astype(dtype)
    if format == "npy":
        np.save(tmp_path / "raw.npy", samples)
    else:
        cv2.imwrite(str(tmp_path / f"raw.{format}"), samples)
    ((name, pixels),) = read_all(str(tmp_path), bayer="RGGB")
    assert name == "raw" and pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, samples)


def test_colour_picture_is_no_bayer_picture(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 36, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(CCNetError, match="mode RGB, expected one channel"):
        read_all(str(tmp_path), bayer="RGGB")


def test_pictures_of_a_camera_beside_its_raw_files_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("rawpy", reason="rawpy is not installed: the extra raw")
    write_dng(tmp_path / "a.DNG", (0.2, 0.4, 0.24), (0.1, 0.3, 0.12))
    for name in ("a.JPG", "a.png", "b.jpg"):
        Image.fromarray(np.zeros((20, 36, 3), np.uint8)).save(tmp_path / name)
    assert [name for name, _ in read_all(str(tmp_path))] == ["a.DNG", "a.png", "b"]
    assert caplog.messages == [f"{tmp_path}: skipped pictures beside raw files of the same name: 1"]
