"""Processes that die while they parse a graph or open an engine: one line, and nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ccnet.contract import CCNetError
from ccnet.export.engine import isolated
from ccnet.export.engine.isolated import build_isolated
from ccnet.runtime.io.artifact_lock import LOCK_NAME
from ccnet.runtime.probe import probe_in_subprocess
from tests.requirements import needs_rtx

from .artifacts import OPTIONS, SHAPES, Ccnet


def test_parser_that_crashes_is_one_line(
    work: Path, tmp_path: Path, ccnet: Ccnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crash the subprocess on purpose, so that the test does not depend on TensorRT's own crashes."""
    (tmp_path / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    result = ccnet("build", work, "--backend", "tensorrt-rtx", "--tile", 64, "--force")
    assert result.code == 2 and "Traceback" not in result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("ccnet: ")
    assert "encode.fp32.onnx: building an engine of it ends the process (SIGSEGV), it is damaged" in last
    assert {path.name: path.read_bytes() for path in work.iterdir() if path.name != LOCK_NAME} == before


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("""print('["parse", 1', end="")""", r"\(exit code 0\), it is damaged"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"\(SIGKILL\), memory ran out"),
        (
            "import os, sys; print(\"terminate called after an instance of 'std::bad_alloc'\", file=sys.stderr);"
            " sys.stderr.flush(); os.abort()",
            r"\(SIGABRT\), memory ran out: build with less --memory",
        ),
        ("raise MemoryError", r"\(exit code 1\), memory ran out"),
        ("raise ImportError('libx.so: failed to map segment from shared object')", "memory ran out"),
        ("raise ValueError('no memory of this')", r"\(exit code 1\), it is damaged"),
    ],
    ids=["half a line", "killed", "bad_alloc", "MemoryError", "no room for a library", "another error"],
)
def test_process_that_ends_without_a_result_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(isolated, "python_command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(CCNetError, match=said) as caught:
        build_isolated(tmp_path / "model.onnx", tmp_path / "engine", OPTIONS)
    assert "\n" not in str(caught.value)


@needs_rtx
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_in_progress_ends_the_subprocess(exported: Path, tmp_path: Path, error: type[BaseException]) -> None:
    def progress(*_: object) -> None:
        (private,) = tmp_path.iterdir()
        (private / ".ccnet-1.partial").write_bytes(b"half")  # as if it had been writing
        raise error("enough")

    with pytest.raises(error, match="enough"):
        build_isolated(
            exported / "decode.fp16.onnx",
            tmp_path / "engine",
            OPTIONS,
            progress=progress,
        )
    assert list(tmp_path.iterdir()) == []


@needs_rtx
def test_isolated_build_reports_like_a_build_in_this_process(exported: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    report = build_isolated(
        exported / "decode.fp16.onnx",
        tmp_path / "engine",
        OPTIONS,
        progress=lambda *step: told.append(step),
    )
    assert report.bytes == (tmp_path / "engine").stat().st_size > 1000
    assert [(one.name, one.shape, one.range) for one in report.io] == [
        ("rgb", (1, 3, -1, -1), SHAPES["rgb"]),
        ("context", (1, 3), None),
        ("cube", (1, 31, -1, -1), None),
        ("cube_sum", (), None),
    ]
    assert told and told[-1][1] == told[-1][2]


def test_nothing_is_imported_from_the_folder_that_is_inspected(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder from elsewhere may hold a json.py or a ccnet.py, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("json.py", "numpy.py", "ccnet.py"):
        Path(name).write_text("raise SystemExit(7)\n")
    probe_in_subprocess(exported, "onnxruntime", "fp16")
