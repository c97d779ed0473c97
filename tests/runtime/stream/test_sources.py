"""Sources: videos, raw video, and names that are refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import read_frame
from ccnet.runtime.stream.sources import RawVideo, parse_source


def test_video_gives_its_frames_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 32))
    for level in (40, 80, 120):
        writer.write(np.full((32, 64, 3), (0, 0, level), np.uint8))  # red, as BGR
    writer.release()
    source = parse_source(str(path)).open()
    frames = []
    while got := source.read():
        frames.append(got[1])
    source.close()
    assert [frame.shape for frame in frames] == [(32, 64, 3)] * 3
    for frame, level in zip(frames, (40, 80, 120), strict=True):
        np.testing.assert_allclose(frame.mean((0, 1)), (level, 0, 0), atol=6)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("u1", (3, 5, 3)), ("<u2", (3, 5, 3)), ("<u2", (4, 6))], ids=["rgb8", "rgb16", "bayer16"]
)
def test_raw_video_is_read_frame_by_frame(dtype: str, shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, *shape)).astype(dtype)
    read, write = os.pipe()
    feeder = threading.Thread(target=_feed, args=(write, frames.tobytes() + b"torn"))
    feeder.start()
    source = RawVideo(read, shape, dtype)
    for frame in frames:
        got = source.read()
        assert got is not None
        np.testing.assert_array_equal(got[1], frame)
    with pytest.raises(CCNetError, match="ends with 4 bytes"):
        source.read()
    assert source.read() is None
    feeder.join()
    os.close(read)


def _feed(descriptor: int, data: bytes) -> None:
    for start in range(0, len(data), 7):
        os.write(descriptor, data[start : start + 7])
    os.close(descriptor)


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("-", None, "--size WxH and the source '-' belong together"),
        ("frames", "4x4", "belong together"),
        ("-", "4", "--size is '4', expected WxH"),
        ("-", "0x4", "--size is '0x4'"),
        ("-", "²x4", "--size is '²x4'"),
        ("none.avi", None, "none.avi: no such file or folder"),
    ],
)
def test_invalid_sources_are_refused(text: str, size: str | None, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        parse_source(text, size)


@pytest.mark.parametrize("text", ["0", "rtsp://127.0.0.1:1/none", "/dev/video99", "videotestsrc ! appsink"])
def test_cameras_are_live(text: str) -> None:
    assert parse_source(text).live


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video.avi").write_bytes(b"none")
    with pytest.raises(CCNetError, match="OpenCV cannot open it"):
        parse_source(str(tmp_path / "video.avi")).open()


def read_all(text: str, **options: bool) -> list[tuple[str, np.ndarray]]:
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
    ((name, pixels),) = read_all(str(tmp_path), bayer=True)
    assert name == "raw" and pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, samples)


def test_colour_picture_is_no_bayer_picture(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 36, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(CCNetError, match="mode RGB, expected one channel"):
        read_all(str(tmp_path), bayer=True)


def test_sources_say_how_many_frames_they_have(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 32))
    for _ in range(3):
        writer.write(np.zeros((32, 64, 3), np.uint8))
    writer.release()
    assert parse_source(str(tmp_path / "v.avi")).open().expected == 3
    assert RawVideo(0, (4, 4, 3), "u1").expected is None
