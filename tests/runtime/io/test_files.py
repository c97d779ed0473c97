"""The files of a folder: links are followed, strays are skipped and counted."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import native_messages, visible_files, walk_files
from ccnet.runtime.io.frames import read_frame


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


def test_native_messages_go_to_the_log(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with native_messages():
        os.write(2, b"libpng warning: one\ntwo \xff\n")
    os.write(2, b"after")
    assert caplog.messages == ["libpng warning: one", "two \ufffd"]
    assert capfd.readouterr().err == "after"


def run_code(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code that has ``native_messages`` in a new interpreter."""
    code = "import os, signal, threading\nfrom ccnet.runtime.io.files import native_messages\n" + code
    command = [sys.executable, "-W", "ignore", *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("code", ["with native_messages(): os.abort()", "with native_messages(): pass\nos.abort()"])
def test_report_of_a_crash_reaches_standard_error(code: str) -> None:
    assert "Fatal Python error: Aborted" in run_code(code, "-X", "faulthandler").stderr


def test_file_that_a_program_chose_for_reports_of_crashes_stays(tmp_path: Path) -> None:
    code = "import faulthandler; faulthandler.enable(open({!r}, 'w'))\nwith native_messages(): os.abort()"
    assert not run_code(code.format(str(tmp_path / "crash"))).stderr
    assert "Aborted" in (tmp_path / "crash").read_text()


def test_child_of_a_fork_reads_files_and_has_its_standard_error() -> None:
    """The parent forks while another thread is in the block."""
    code = """
inside = threading.Event()
def read():
    with native_messages():
        inside.set()
        threading.Event().wait(0.1)
threading.Thread(target=read).start()
inside.wait()
child = os.fork()
if not child:
    signal.alarm(10)
    os.write(2, b"child")
    with native_messages():
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = run_code(code)
    assert (result.stdout, result.stderr) == ("7\n", "child")


def test_closed_standard_error_is_no_error() -> None:
    result = run_code("os.close(2)\nwith native_messages(): print(os.path.exists('/dev/fd/2'))")
    assert result.stdout == "False\n"


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_decoders_of_damaged_pictures_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], keep: float
) -> None:
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 65535, (40, 40, 3)).astype(np.uint16))
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(keep * len(data))])
        with pytest.raises(CCNetError):
            read_frame(tmp_path / name)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"hello", b"\0\0\0\x18ftypmp42" + bytes(200), b"RIFF\0\0\0\0AVI LIST"])
def test_videos_that_cannot_be_opened_print_nothing_of_their_library(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    code = "import sys; from ccnet.runtime.stream.sources.parse import parse_source; parse_source(sys.argv[1]).open()"
    shown = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    command = [sys.executable, "-c", code, str(tmp_path / "v.mp4")]
    result = subprocess.run(command, capture_output=True, text=True, env=shown, check=False)
    assert result.stderr.startswith("Traceback") and "OpenCV cannot open it" in result.stderr.splitlines()[-1]
