"""Videos that declare a colour space, written by FFmpeg through PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io import video_colour as module
from ccnet.runtime.io.video_colour import video_colour
from ccnet.runtime.stream.sources.parse import parse_source

av: Any = pytest.importorskip("av", reason="needs PyAV")
RGB = (200, 60, 40)
MATRICES = {1: "ITU709", 2: "ITU601", 5: "ITU601", 6: "ITU601", 9: "BT2020"}


def write(path: Path, primaries: int, transfer: int, matrix: int, full_range: bool = False) -> Path:
    """Write three frames of one colour with these codes of ITU-T H.273."""
    space = av.video.reformatter.Colorspace[MATRICES[matrix]]
    range_ = av.video.reformatter.ColorRange["JPEG" if full_range else "MPEG"]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), RGB, np.uint8), format="rgb24")
        picture = picture.reformat(format="yuv444p", dst_colorspace=space, dst_color_range=range_)
        for each in (stream.codec_context, picture):
            each.color_primaries, each.color_trc, each.colorspace = primaries, transfer, matrix
            each.color_range = 2 if full_range else 1
        for number in range(3):
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "MOV"])
@pytest.mark.parametrize(
    ("codes", "described"),
    [
        ((2, 2, 2), "sRGB (assumed)"),
        ((1, 1, 1), "sRGB (the video's BT.709 primaries, BT.709 transfer)"),
        ((1, 13, 1, True), "sRGB (the video's BT.709 primaries, sRGB transfer)"),
        ((6, 6, 6), "sRGB (the video's SMPTE 170M primaries, SMPTE 170M transfer)"),
    ],
    ids=["nothing", "BT.709", "full range", "BT.601"],
)
def test_matrix_and_range_are_honoured_and_the_rest_is_said(
    tmp_path: Path, suffix: str, codes: Any, described: str
) -> None:
    source = parse_source(str(write(tmp_path / f"v.{suffix}", *codes))).open()
    got = source.read()
    assert got is not None and source.colour == described
    np.testing.assert_allclose(got[1].mean((0, 1)), RGB, atol=3)
    source.close()


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ((9, 16, 9), "its primaries are BT.2020, expected BT.709 or sRGB; convert it"),
        ((12, 13, 1), "its primaries are Display P3"),
        ((1, 16, 1), "its transfer characteristics are PQ"),
        ((1, 18, 1), "its transfer characteristics are HLG"),
        ((1, 8, 1), "its transfer characteristics are linear"),
    ],
)
def test_other_spaces_are_refused_with_the_remedy(tmp_path: Path, codes: Any, words: str) -> None:
    path = write(tmp_path / "v.mkv", *codes)
    with pytest.raises(CCNetError, match=words):
        parse_source(str(path)).open()


def test_transfer_of_stored_values_does_not_matter(tmp_path: Path) -> None:
    assert parse_source(str(write(tmp_path / "v.mkv", 1, 8, 1)), as_stored=True).open().colour == "as stored"
    with pytest.raises(CCNetError, match=r"primaries are BT\.2020"):  # OpenCV converts them
        parse_source(str(write(tmp_path / "w.mkv", 9, 8, 9)), as_stored=True).open()


def test_without_pyav_srgb_is_assumed_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "v.mkv", 9, 16, 9)

    def absent(name: str, extra: str) -> None:
        raise CCNetError(f"{name} is not installed")

    monkeypatch.setattr(module, "optional_module", absent)
    assert video_colour(path) == "sRGB (assumed, as PyAV, which reads what a video declares, is not installed)"


@pytest.mark.parametrize("content", [b"", b"RIFF0000AVI ", bytes(range(256)) * 9])
def test_what_pyav_cannot_read_is_assumed_and_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.avi").write_bytes(content)
    assert video_colour(tmp_path / "v.avi") == "sRGB (assumed, as PyAV cannot read what the video declares)"
