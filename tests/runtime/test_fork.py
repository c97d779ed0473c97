"""Forked processes: a Reconstructor that was opened before the fork refuses to run, and never hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
import numpy as np
from ccnet.runtime import CCNetError, Reconstructor

reconstruct = Reconstructor.open(sys.argv[1], input_space="camera")
frame = np.zeros((64, 64, 3), np.uint8)
reconstruct(frame)
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    reconstruct(frame)  # which the child did not disturb
    reconstruct.close()
    sys.exit(os.waitstatus_to_exitcode(status))
{child}
"""

CASES = {
    "runs": """
try:
    reconstruct(frame)
except CCNetError as error:
    print(error)
""",
    "closes": "reconstruct.close()",
    "forgets": "del reconstruct",
    "exits": "pass",
    "opens": """
with Reconstructor.open(sys.argv[1], input_space="camera") as again:
    print(again(frame).shape)
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("case", CASES)
def test_forked_process_ends(artifacts: tuple[object, Path], case: str) -> None:
    code = PROGRAM.format(child=CASES[case])
    command = [sys.executable, "-c", code, str(artifacts[1])]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    expected = {"runs": "opened before this process was forked", "opens": "(31, 64, 64)"}
    assert expected.get(case, "") in process.stdout
