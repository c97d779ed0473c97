"""One minute of the soak test; ``make soak`` runs half an hour.

The script has a folder of its own: its folder leads Python's path, and ``tests/ccnet`` must not hide the package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def test_one_minute_of_faults_passes(artifacts: Any) -> None:
    command = [sys.executable, Path(__file__).with_name("soak.py"), "--seconds", "60", "--artifacts", artifacts[1]]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1000)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "MB/h" in result.stdout and "Traceback" not in result.stderr
