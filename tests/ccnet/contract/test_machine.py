"""Facts about the machine, also on operating systems that do not report them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccnet.contract import (
    ArtifactFolder,
    CCNetError,
    available_cores,
    available_memory,
    core_quota,
    cpu_name,
    limit_cores,
    machine,
)
from ccnet.model import CCNet
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.cli.app import build_app


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert available_cores() == 3


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "20000 100000"}, 1),
        ("0::/a\n", {"a/cpu.max": "max 100000"}, 3),
        ("0::/none\n", {}, 3),
        ("0::/a\n", {"a/cpu.max": "900000 100000"}, 3),
        ("2:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2),
        ("2:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("2:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_quotas_of_control_groups_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    _memory_files(tmp_path, monkeypatch, groups)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert available_cores() == cores


@pytest.fixture
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # so that the value of before comes back
    yield
    limit_cores(None)


@pytest.mark.usefixtures("_no_limit")
def test_a_limit_counts_like_a_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    _memory_files(tmp_path, monkeypatch, "0::/a\n")
    (tmp_path / "groups/a").mkdir(parents=True)
    (tmp_path / "groups/a/cpu.max").write_text("200000 100000")
    for limit, quota in ((1, 1), (2, 2), (3, 2)):
        limit_cores(limit)
        assert (core_quota(), available_cores(), os.environ["OMP_NUM_THREADS"]) == (quota, quota, str(quota))
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    limit_cores(None)
    assert (core_quota(), os.environ["OMP_NUM_THREADS"]) == (2, "9")  # the user's own
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_cores(None)
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.usefixtures("_no_limit")
@pytest.mark.parametrize(
    "command",
    ["export", "check", "bundle", "calibrate ranges", "calibrate bisect", "calibrate int8", "calibrate contexts"],
)
def test_commands_that_compute_take_a_limit(tmp_path: Path, command: str) -> None:
    (tmp_path / "no-folder").touch()  # so each command ends as soon as it has set the limit
    result = CliRunner().invoke(build_app()[0], [*command.split(), str(tmp_path / "no-folder"), "--threads", "1"])
    assert isinstance(result.exception, CCNetError), result.output
    assert core_quota() == 1


@pytest.mark.usefixtures("_no_limit")
def test_onnx_runtime_keeps_to_the_limit(artifacts: tuple[CCNet, Path]) -> None:
    folder = ArtifactFolder.open(artifacts[1])
    limit_cores(1)
    with OnnxRuntimeBackend(folder.read(folder.find("decode"))) as backend:
        assert backend._session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch, count: int | None, cores: int) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert available_cores() == cores


def test_cpu_name_is_found_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert cpu_name() in (platform.processor(), platform.machine())


def test_cpu_name_is_read_from_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert cpu_name() == "Some CPU @ 2 GHz"


def test_every_command_loads_without_affinity() -> None:
    """Load a command without ``sched_getaffinity``, as on macOS and Windows."""
    script = (
        "import os, sys; vars(os).pop('sched_getaffinity', None); sys.argv = ['ccnet', 'bench', '--help'];"
        " from ccnet.runtime.cli.main import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--threads" in result.stdout


def _memory_files(folder: Path, monkeypatch: pytest.MonkeyPatch, groups: str) -> None:
    monkeypatch.setattr(machine, "_MEMINFO", folder / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP", folder / "cgroup")
    monkeypatch.setattr(machine, "_CGROUP_ROOT", folder / "groups")
    (folder / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 100 kB\nMemAvailable: 800 kB\nHugePages_Total: 0\n")
    (folder / "cgroup").write_text(groups)


def _write_group(folder: Path, names: tuple[str, str], limit: str, used: int, cache: str) -> None:
    folder.mkdir(parents=True)
    for name, value in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(value + "\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cache}\n")


def test_available_memory_is_the_kernels_without_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _memory_files(tmp_path, monkeypatch, "")
    assert available_memory() == 800 * 1024


@pytest.mark.parametrize(
    ("groups", "place", "names", "cache"),
    [
        ("0::/a/b", "a", ("memory.max", "memory.current"), "inactive_file"),
        ("0::/\n", "", ("memory.max", "memory.current"), "inactive_file"),
        ("4:cpu,memory:/a/b\n", "memory/a", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"),
    ],
)
def test_available_memory_is_limited_by_control_groups(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, place: str, names: tuple[str, str], cache: str
) -> None:
    """The limit of a group around the process's own counts too; pages of files that can be dropped are free."""
    _memory_files(tmp_path, monkeypatch, groups)
    _write_group(tmp_path / "groups" / place, names, "500000", 200_000, f"{cache} 50000")
    assert available_memory() == 350_000


@pytest.mark.parametrize(("limit", "used", "left"), [("max", 7, 800 * 1024), ("1000", 5000, 0)])
def test_available_memory_without_a_limit_and_beyond_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, used: int, left: int
) -> None:
    _memory_files(tmp_path, monkeypatch, "0::/\n")
    _write_group(tmp_path / "groups", ("memory.max", "memory.current"), limit, used, "inactive_file 0")
    assert available_memory() == left


def test_available_memory_elsewhere_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}[name], raising=False)
    assert available_memory() == 40_960
    monkeypatch.delattr(os, "sysconf")
    assert available_memory() is None
