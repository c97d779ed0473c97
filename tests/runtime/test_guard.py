"""A process of its own for what may crash."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.guard import judge, survive


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match=r"no manifest\.json"):
        survive(tmp_path, "onnxruntime", "fp32")


def test_a_whole_folder_survives(artifacts: tuple[object, Path]) -> None:
    survive(artifacts[1], "onnxruntime", "fp16")


@pytest.mark.parametrize(
    ("code", "how"), [("import os; os.abort()", "SIGABRT"), ("raise SystemExit(3)", "exit code 3")]
)
def test_a_crash_is_a_line(tmp_path: Path, code: str, how: str) -> None:
    with pytest.raises(CCNetError, match=how) as caught:
        judge(tmp_path, [sys.executable, "-c", code])
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
