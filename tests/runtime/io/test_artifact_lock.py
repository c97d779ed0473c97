"""The lock of an artifact folder, between threads, between processes, and after a process that died."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.artifact_lock import lock_artifacts

HOLD = """
import sys, pathlib
from ccnet.runtime.io.artifact_lock import lock_artifacts
with lock_artifacts(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that has the lock until its stdin ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    return process


def test_lock_that_is_free_is_taken_without_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with lock_artifacts(tmp_path / "new", wait=False, say=said.append):
            pass
    assert not said


def test_lock_of_another_process_is_waited_for_and_said(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        said, taken = [], threading.Event()

        def wait() -> None:
            with lock_artifacts(tmp_path, say=said.append):
                taken.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not taken.wait(0.5)
        assert said == [f"{tmp_path}: another ccnet process writes into it; waiting for its end"]
        process.communicate(b"")
        assert taken.wait(60)
        waiting.join()


def test_lock_of_another_process_is_refused_on_demand(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        with (
            pytest.raises(CCNetError, match="another ccnet process writes into it"),
            lock_artifacts(tmp_path, wait=False),
        ):
            pass
        process.communicate(b"")


def test_lock_of_a_dead_process_is_no_obstacle(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with lock_artifacts(tmp_path, wait=False):
        pass


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CCNetError, match="cannot be made"), lock_artifacts(tmp_path / "file" / "below"):
        pass
