"""The sources that texts name, and names that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.sources.parse import parse_source


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


@pytest.mark.parametrize("name", ["rosbag", "genicam", "aravis"])
def test_folder_with_the_name_of_a_scheme_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    np.save(tmp_path / name / "0.npy", np.zeros((4, 4, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    source = parse_source(name).open()
    assert source.expected == 1
    source.close()
