"""Facts about the machine, also on operating systems that do not report them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ccnet.contract import available_cores


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert available_cores() == 3


@pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch, count: int | None, cores: int) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert available_cores() == cores


def test_every_command_loads_without_affinity() -> None:
    """Load a command without ``sched_getaffinity``, as on macOS and Windows."""
    script = (
        "import os, sys; vars(os).pop('sched_getaffinity', None); sys.argv = ['ccnet', 'bench', '--help'];"
        " from ccnet.runtime.cli.main import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--threads" in result.stdout
