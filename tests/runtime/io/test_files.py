"""The files of a folder: links are followed, strays are skipped and counted."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ccnet.runtime.io.files import visible_files, walk_files


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "a/1.png", "b/2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").symlink_to(tmp_path / "disk/a")
    (tmp_path / "data/2.png").symlink_to(tmp_path / "disk/b/2.png")
    found = [path.relative_to(tmp_path / "data").as_posix() for path in walk_files(tmp_path / "data")]
    assert found == ["2.png", "a/1.png"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    assert [path.name for path in walk_files(tmp_path)] == ["1.png"]


def test_hidden_files_and_dead_links_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "._1.png", ".cache/2.png")
    (tmp_path / "3.png").symlink_to(tmp_path / "none")
    assert [path.name for path in walk_files(tmp_path)] == ["1.png"]


def test_strays_are_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "b.PNG", "a.png", "._a.png", ".b.png", "notes.txt")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dead.png").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe.png")
    with caplog.at_level(logging.WARNING):
        assert [path.name for path in visible_files(tmp_path, [".png"])] == ["a.png", "b.PNG"]
    (record,) = caplog.records
    for part in ("hidden files: 2", "folders: 1", "links to nothing, or no files: 2"):
        assert part in record.message


def test_folder_without_strays_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.png")
    visible_files(tmp_path, [".png"])
    assert not caplog.records
