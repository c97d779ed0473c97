"""``ccnet view`` as a program: it serves until it is stopped, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccnet.runtime.apps.view.cli import DEFAULT_PORT
from tests.runtime.io.cube_files import cube_of, save

pytest.importorskip("starlette", reason='starlette is not installed: pip install ".[view]"')

PROGRAM = "import sys; from ccnet.runtime.cli.main import main; sys.exit(main())"


def test_program_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.hdr", cube_of()), save(tmp_path / "b.npy", cube_of(seed=1))
    command = [sys.executable, "-c", PROGRAM, "view", first, second, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}api/scene", timeout=30) as answer:  # noqa: S310 - the program's own address
            scene = json.loads(answer.read())
        assert [cube["name"] for cube in scene["cubes"]] == ["a.hdr", "b.npy"]
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_wrong_input_is_one_line(ccnet: Callable[..., Any], tmp_path: Path) -> None:
    cube = save(tmp_path / "a.hdr", cube_of())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = ccnet("view", cube, "--port", port)
    missing = ccnet("view", tmp_path / "b.hdr")
    frame = ccnet("view", cube, "--frame", tmp_path / "b.png")
    elsewhere = ccnet("view", cube, "--host", "no such host", "--port", 0)
    for result, words in (
        (busy, f"127.0.0.1 port {port}: cannot be bound"),
        (missing, "no such file"),
        (frame, "no such file"),
        (elsewhere, "choose another --port or --host"),
    ):
        assert result.code == 2 and words in result.err
        assert result.err.count("\n") == 1 and "Traceback" not in result.err


def test_frame_without_artifacts_says_what_is_missing(ccnet: Callable[..., Any], tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (24, 20)).save(tmp_path / "a.png")
    result = ccnet("view", tmp_path / "a.png", "--artifacts", tmp_path / "none")
    assert result.code == 2 and str(tmp_path / "none") in result.err


def test_default_port_is_in_the_documents() -> None:
    text = (Path(__file__).parents[4] / "docs" / "view.md").read_text(encoding="utf-8")
    assert f"http://127.0.0.1:{DEFAULT_PORT}/" in text
