"""The commands of docs/stream.md for Aravis, with its fake camera, beside torch and ONNX Runtime in one process."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccnet.runtime import read_cube
from tests.runtime.stream.fake_aravis import require_aravis

Aravis = require_aravis()

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/stream.md"
COMMANDS = re.findall(r"^ccnet stream '?aravis:.*$", DOCUMENT.read_text(encoding="utf-8"), re.M)


@pytest.fixture(scope="module", autouse=True)
def _fake_camera() -> Iterator[Any]:
    yield Aravis.GvFakeCamera.new("127.0.0.1", "GV01")


def test_document_has_commands() -> None:
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_document_writes_cubes(command: str, work: Path, ccnet: Callable[..., Any]) -> None:
    (work / "camera.json").write_text('{"bits": 8, "bayer": "RGGB", "transfer": "srgb"}')
    _, *words = shlex.split(command.replace("192.168.1.20", "127.0.0.1"))
    result = ccnet(*words, "--frames", 2, "--policy", "block")
    assert (result.code, result.err) == (0, "")
    assert "2 frames arrived: 2 delivered, 0 dropped by policy, 0 rejected" in result.out
    cubes = sorted((work / "cubes").glob("*.hdr"))
    assert [read_cube(path).shape for path in cubes] == [(31, 512, 512)] * 2
    assert "aravis:127.0.0.1" in cubes[0].read_text()
