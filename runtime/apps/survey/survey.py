"""One survey: what is there already, what is to do, and a manifest that is never far behind."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.runtime.io.artifact_lock import lock_folder

from .manifest import Row, as_text, read_manifest, write_manifest
from .sources import ArchiveFrame
from .worker import Task, run_frame

SAVE_S = 10.0
"""Longest time between two writes of the manifest while frames come, s."""

_PARTIAL = re.compile(r"\.ccnet-[0-9a-f]{12}.*")  # the names of hidden_path

Runner = Callable[[Task, Sequence[ArchiveFrame]], Generator[Row, None, None]]
"""Runs a task on frames and yields their rows in the order in which they are ready."""


@dataclass(frozen=True)
class Counts:
    """Numbers of frames.

    Attributes:
        total: Frames of the archive.
        kept: Frames whose results were there before.
        done: Frames of this run.
        failed: Frames that failed in this run.
    """

    total: int
    kept: int
    done: int = 0
    failed: int = 0

    @property
    def left(self) -> int:
        """Frames still to do."""
        return self.total - self.kept - self.done - self.failed


def run_here(task: Task, frames: Sequence[ArchiveFrame]) -> Generator[Row, None, None]:
    """Run a task on frames in this process, one after the other, and yield their rows."""
    for frame in frames:
        yield run_frame(task, frame)


def run_survey(
    task: Task,
    frames: Sequence[ArchiveFrame],
    *,
    wanted: str,
    runner: Runner = run_here,
    report: Callable[[Counts, Row | None], object] = lambda counts, row: None,
) -> tuple[Counts, list[Row]]:
    """Make the results that are missing, and keep the manifest.

    Args:
        task: The work on each frame.
        frames: The archive.
        wanted: The results in words, for the manifest.
        runner: The function that runs the task on the frames: in this process, or on a cluster.
        report: Called at the start, and with the row of each frame.

    Returns:
        The numbers of frames, and the rows of those that failed in this run.

    Raises:
        CCNetError: The artifacts cannot be opened, the folder holds another survey, another one runs in it, or its
            disk is full. The manifest has all that was done until then.
    """
    out = Path(task.out)
    with lock_folder(out, lambda: _refuse(out)):
        survey = _facts(task, wanted)
        rows = read_manifest(out, survey)
        done = {frame for frame in frames if task.is_done(frame)}
        unlisted = [frame for frame in frames if frame in done and not _is_listed(frame, rows)]
        rows |= {as_text(frame.name): _found(task, frame) for frame in unlisted}
        missing = [frame for frame in frames if frame not in done]
        ledger = _Ledger(out, survey, rows, Counts(len(frames), len(frames) - len(missing)))
        report(ledger.counts, None)
        try:
            with closing(runner(task, missing)) as results:
                for row in results:
                    ledger.add(row)
                    report(ledger.counts, row)
                    if row.disk_full:
                        left = ledger.counts.left + 1
                        raise CCNetError(f"{out}: the disk is full, {left} frames are left; make room and run again")
        finally:
            ledger.save()
        _remove_partial_files(out)
    return ledger.counts, ledger.failed


def _refuse(out: Path) -> NoReturn:
    """Refuse a folder with another survey: each would remove the other's partial files, and replace its manifest."""
    raise CCNetError(
        f"{out}: another survey runs in this folder, expected none; wait for its end, or choose another --out"
    )


class _Ledger:
    """The rows of a survey, their numbers, and the manifest, which is written at times."""

    def __init__(self, out: Path, survey: dict[str, str], rows: dict[str, Row], counts: Counts) -> None:
        self.counts, self.failed = counts, list[Row]()
        self._out, self._survey, self._rows = out, survey, rows
        self._saved = time.monotonic()

    def add(self, row: Row) -> None:
        """Enter the row of a frame of this run; the manifest that may be written has the rows before it."""
        if time.monotonic() - self._saved > SAVE_S:
            self.save()
        self._rows[as_text(row.frame)] = row
        if row.status == "done":
            self.counts = replace(self.counts, done=self.counts.done + 1)
        else:
            self.failed.append(row)
            self.counts = replace(self.counts, failed=self.counts.failed + 1)

    def save(self) -> None:
        """Write the manifest."""
        write_manifest(self._out, self._rows.values(), self._survey)
        self._saved = time.monotonic()


def _remove_partial_files(out: Path) -> None:
    """Remove what workers left that were killed while they wrote; at the end nobody else writes."""
    for path in out.rglob(".ccnet-*"):
        if _PARTIAL.fullmatch(path.name) and path.is_file():
            with suppress(OSError):  # all results are there: this is no reason to fail
                path.unlink()


def _facts(task: Task, wanted: str) -> dict[str, str]:
    """Return the facts that the results depend on."""
    engine = task.engine
    manifest = ArtifactFolder.open(engine.artifacts).manifest
    return {
        "weights": manifest.weights_sha256[:16],
        "input space": engine.input_space,
        "backend": engine.backend,
        "precision": engine.precision or "default",
        "result": wanted,
    }


def _is_listed(frame: ArchiveFrame, rows: dict[str, Row]) -> bool:
    """Return whether a row says that the frame is done."""
    row = rows.get(as_text(frame.name))
    return row is not None and row.status == "done"


def _found(task: Task, frame: ArchiveFrame) -> Row:
    """Return the row of a result that a run left behind which did not reach its next write of the manifest."""
    return Row(frame=frame.name, location=frame.location, status="done", output=task.output(frame))
