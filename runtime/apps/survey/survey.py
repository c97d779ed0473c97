"""One survey: what is there already, what is to do, and a manifest that is never far behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ccnet.contract import ArtifactFolder, CCNetError, make_folder

from .manifest import Row, read_manifest, write_manifest
from .sources import ArchiveFrame
from .worker import Task, run_frame

SAVE_S = 10.0
"""Longest time between two writes of the manifest while frames come, s."""

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
        task: What to make of each frame.
        frames: The archive.
        wanted: The results in words, for the manifest.
        runner: Where the frames are computed.
        report: Called at the start, and with the row of each frame.

    Returns:
        The numbers of frames, and the rows of those that failed in this run.

    Raises:
        CCNetError: The artifacts cannot be opened, the folder holds another survey, or its disk is full. The manifest
            has all that was done until then.
    """
    out = Path(task.out)
    make_folder(out)
    survey = _facts(task, wanted)
    rows = read_manifest(out, survey)
    rows |= {frame.name: _found(task, frame) for frame in frames if _is_unlisted(task, frame, rows)}
    missing = [frame for frame in frames if not task.is_done(frame)]
    done, failed = 0, list[Row]()
    counts = Counts(len(frames), len(frames) - len(missing))
    report(counts, None)
    saved = time.monotonic()
    try:
        with closing(runner(task, missing)) as results:
            for row in results:
                rows[row.frame] = row
                done += row.status == "done"
                failed += [row] if row.status == "failed" else []
                counts = Counts(len(frames), len(frames) - len(missing), done, len(failed))
                report(counts, row)
                if row.disk_full:
                    raise CCNetError(
                        f"{out}: the disk is full, {counts.left + 1} frames are left; make room and run again"
                    )
                if time.monotonic() - saved > SAVE_S:
                    write_manifest(out, rows.values(), survey)
                    saved = time.monotonic()
    finally:
        write_manifest(out, rows.values(), survey)
    _remove_partial_files(out)
    return counts, failed


def _remove_partial_files(out: Path) -> None:
    """Remove what workers left that were killed while they wrote; at the end nobody else writes."""
    for path in out.rglob(".ccnet-*"):  # the names of hidden_path
        path.unlink(missing_ok=True)


def _facts(task: Task, wanted: str) -> dict[str, str]:
    """Return the facts that the results depend on."""
    manifest = ArtifactFolder.open(task.engine.artifacts).manifest
    return {"weights": manifest.weights_sha256[:16], "input space": task.engine.input_space, "result": wanted}


def _is_unlisted(task: Task, frame: ArchiveFrame, rows: dict[str, Row]) -> bool:
    row = rows.get(frame.name)
    return task.is_done(frame) and (row is None or row.status != "done")


def _found(task: Task, frame: ArchiveFrame) -> Row:
    """Return the row of a result that a run left behind which did not reach its next write of the manifest."""
    return Row(frame=frame.name, location=frame.location, status="done", output=task.output(frame))
