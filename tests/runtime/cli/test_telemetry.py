"""ONNX Runtime's telemetry: no process of the project leaves an id or looks up its collector."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CCNET = "import sys; from ccnet.runtime.cli.main import main; sys.argv[0] = 'ccnet'; main()"

LOOKUPS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    FILE *log = fopen(getenv("LOOKUPS"), "a");
    if (log) { fprintf(log, "%s\\n", node ? node : ""); fclose(log); }
    return EAI_FAIL;
}
"""
"""A library that writes the name of each host that a process looks up to a file, and finds none."""


def run(home: Path, code: str, *arguments: str, **environment: str) -> None:
    """Run Python code with an empty home folder."""
    home.mkdir(exist_ok=True)
    cleared = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in cleared}
    variables = {**kept, "HOME": str(home), "MPLCONFIGDIR": str(home.parent), **environment}
    subprocess.run([sys.executable, "-c", code, *arguments], env=variables, check=True, capture_output=True)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "arguments",
    [
        ("reconstruct", "photo.png", "-o", "photo.npy"),
        ("stream", "photos", "--sink", "cubes", "--format", "npy"),
        ("inspect", "build/ccnet"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_leave_nothing_in_the_home_folder(work: Path, arguments: tuple[str, ...]) -> None:
    (work / "photos").mkdir()
    shutil.copy("photo.png", "photos")
    run(work / "home", CCNET, *arguments)
    assert files(work / "home") == []


def test_library_leaves_nothing_in_the_home_folder(work: Path) -> None:
    """A program that embeds the runtime, and one that exports, which loads ONNX Runtime itself."""
    run(work / "home", "from ccnet.runtime import Reconstructor; Reconstructor.open('build/ccnet').close()")
    run(work / "home", "import ccnet.export.reference, onnxruntime")
    assert files(work / "home") == []


def test_telemetry_can_be_turned_on(work: Path) -> None:
    """The control: without this ONNX Runtime might have no telemetry on this platform, and the tests could not fail."""
    code = "import ccnet, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'; import onnxruntime"
    run(work / "home", code, ORT_DISABLE_TELEMETRY="0")
    if not files(work / "home"):
        pytest.skip("this build of ONNX Runtime keeps no telemetry")
    assert any("onnxruntime" in name for name in files(work / "home"))


@pytest.mark.slow
def test_no_host_is_looked_up(work: Path) -> None:
    if (compiler := shutil.which("cc")) is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux to watch the names that a process looks up")
    (work / "lookups.c").write_text(LOOKUPS)
    subprocess.run([compiler, "-shared", "-fPIC", "lookups.c", "-o", "lookups.so"], check=True)
    watched = {"LD_PRELOAD": str(work / "lookups.so"), "LOOKUPS": str(work / "names")}
    session = (
        "from ccnet.runtime import Reconstructor; import time; r = Reconstructor.open('build/ccnet'); time.sleep(5)"
    )
    run(work / "home", session, **watched)
    assert not (work / "names").exists()
    run(
        work / "home",
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('a.b', 1)",
        **watched,
    )
    assert (work / "names").read_text() == "a.b\n"
