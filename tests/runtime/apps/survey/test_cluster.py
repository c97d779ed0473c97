"""A real Dask cluster: a worker is killed, and the scheduler starts again; every frame is done once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ccnet.runtime.apps.survey.cluster import Cluster
from ccnet.runtime.apps.survey.manifest import Row, read_manifest
from ccnet.runtime.apps.survey.sources import find_frames
from ccnet.runtime.apps.survey.survey import Counts, run_survey
from ccnet.runtime.apps.survey.worker import Task
from ccnet.runtime.io.artifact_lock import LOCK_NAME
from tests.runtime.apps.survey.conftest import archive
from tests.runtime.conftest import refusal

pytest.importorskip("distributed", reason='distributed is not installed: pip install ".[scale]"')

pytestmark = pytest.mark.slow
FRAMES = 30


class DaskCluster:
    """A scheduler and workers, each a process that the test may kill."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.folder, self.processes = folder, list[subprocess.Popen[bytes]]()
        self.log = (folder / "dask.log").open("wb")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words]
        environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s"}
        process = subprocess.Popen(command, cwd=self.folder, stdout=self.log, stderr=self.log, env=environment)
        self.processes.append(process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        return self.start("scheduler", "--host", self.address, "--no-dashboard")

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def wait_for_workers(self, count: int) -> None:
        import distributed

        with distributed.Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskCluster]:
    cluster = DaskCluster(tmp_path)
    yield cluster
    for process in cluster.processes:
        process.kill()
        process.wait()
    cluster.log.close()


def test_every_frame_is_done_though_a_worker_and_the_scheduler_are_killed(
    task: Callable[..., Task], tmp_path: Path, dask: DaskCluster
) -> None:
    frames, made = archive(tmp_path / "frames", FRAMES, 192), task(projection=None, format="npy")
    (frames / "0009.npy").write_bytes(b"damaged")
    scheduler, first, second = dask.scheduler(), dask.worker(), dask.worker()
    dask.wait_for_workers(2)
    seen, killed = list[Counts](), list[str]()

    def report(counts: Counts, row: Row | None) -> None:
        seen.append(counts)
        worker = row.worker.rpartition(":")[2] if row else ""
        if not killed and counts.done >= 3 and worker == str(first.pid):
            killed.append("worker")
            first.kill()
        elif killed == ["worker"] and counts.done >= 10 and worker == str(second.pid):
            killed.append("scheduler")
            scheduler.kill()
            threading.Thread(target=lambda: (scheduler.wait(), dask.scheduler(), dask.worker())).start()

    cluster = Cluster(dask.address)
    counts, failed = run_survey(made, find_frames([str(frames)]), wanted="test", runner=cluster, report=report)
    assert killed == ["worker", "scheduler"]
    assert counts == Counts(FRAMES, 0, FRAMES - 1, 1)
    assert [row.frame for row in failed] == ["0009.npy"]
    rows = read_manifest(Path(made.out), {})
    assert len(rows) == FRAMES and sum(row.status == "done" for row in rows.values()) == FRAMES - 1
    assert len({row.worker for row in rows.values()}) == 3  # the two workers, and the one of the second scheduler
    assert [counts.done + counts.failed for counts in seen] == list(range(FRAMES + 1))  # each frame once
    left = {path.name for path in Path(made.out).iterdir()} - {LOCK_NAME}
    assert len(left) == FRAMES  # whole results and the manifest, nothing else hidden


def test_scheduler_that_does_not_answer_is_refused_before_any_work() -> None:
    started = time.monotonic()
    refusal(lambda: Cluster("tcp://127.0.0.1:9", connect_s=0.2), "tcp://127.0.0.1:9", "dask scheduler")
    assert time.monotonic() - started < 30
