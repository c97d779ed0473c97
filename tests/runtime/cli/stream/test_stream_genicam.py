"""The commands of docs/stream.md for GenICam producers, with the simulated producer of the genicam package."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccnet.runtime import read_cube

genicam = pytest.importorskip("genicam", reason='needs pip install ".[genicam]"')
pytest.importorskip("harvesters", reason='needs pip install ".[genicam]"')

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/stream.md"
COMMANDS = re.findall(r"^((?:GENICAM_\S+ )?ccnet stream '?genicam:.*)$", DOCUMENT.read_text(encoding="utf-8"), re.M)
PRODUCERS = Path(genicam.__path__[0])
if not (PRODUCERS / "viky.cti").exists():
    pytest.skip("the genicam package of this platform brings no simulated producer", allow_module_level=True)


def test_document_has_commands() -> None:
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_document_writes_cubes(
    command: str, work: Path, ccnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = command.replace("/opt/camera/lib/producer.cti", (PRODUCERS / "viky.cti").as_posix())
    words = shlex.split(command.replace("/opt/camera/lib", PRODUCERS.as_posix()))
    variables = words[: words.index("ccnet")]
    for variable in variables:
        monkeypatch.setenv(*variable.split("=", 1))
    result = ccnet(*words[len(variables) + 1 :], "--frames", 2, "--policy", "block")
    assert (result.code, result.err) == (0, "")
    assert "2 frames arrived: 2 delivered, 0 dropped by policy, 0 rejected" in result.out
    cubes = sorted((work / "cubes").glob("*.hdr"))
    assert [read_cube(path).shape for path in cubes] == [(31, 400, 400)] * 2
    header = cubes[0].read_text()
    assert "sRGB (assumed)" in header and "genicam:" in header


def test_camera_that_is_not_there_ends_the_command(work: Path, ccnet: Callable[..., Any]) -> None:
    result = ccnet("stream", f"genicam:{PRODUCERS / 'viky.cti'}?device=nobody", "--sink", "cubes")
    assert result.code == 2 and result.err.count("\n") == 1
    assert "no camera 'nobody', found VikyTL_DEV_red, VikyTL_DEV_green, VikyTL_DEV_blue" in result.err
