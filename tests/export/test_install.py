"""The environment gets the packages of its target, TensorRT may be missing, and make asks for what was chosen."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccnet.export import install
from ccnet.export.machine import Machine, Target

REPOSITORY = Path(__file__).resolve().parents[2]
TARGETS: tuple[Target, ...] = ("cpu", "gpu", "gpu-cu12", "jetson", "rtx")
NO_GPU = Machine(system="Linux x86_64", problem="no NVIDIA driver (there is no nvidia-smi)")
RTX_4090 = Machine(system="Linux x86_64", driver="580.95.05", gpus=("NVIDIA GeForce RTX 4090 (sm_89)",))
RTX_3060 = Machine(system="Linux x86_64", driver="550.54.14", gpus=("NVIDIA GeForce RTX 3060 (sm_86)",))
H200 = Machine(system="Linux x86_64", driver="580.95.05", gpus=("NVIDIA H200 (sm_90)",))
ORIN = Machine(system="Linux aarch64", jetson_linux="36.4.3", driver="540.4.0", gpus=("Orin (nvgpu) (sm_87)",))


class Commands:
    """The commands that the installer runs, and their exit codes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fail: Callable[[str], bool] = lambda line: False

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        line = shlex.join(command)
        self.lines.append(line)
        if "-m venv" in line:
            (Path(command[-1]) / "bin").mkdir(parents=True, exist_ok=True)
            (Path(command[-1]) / "pyvenv.cfg").touch()
        return subprocess.CompletedProcess(command, int(self.fail(line)))

    @property
    def extras(self) -> list[str]:
        return re.findall(r"\.\[([\w,-]+)\]", " ".join(self.lines))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    recorder = Commands()
    monkeypatch.setattr(install.subprocess, "run", recorder.run)
    return recorder


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], None]:
    return lambda machine: monkeypatch.setattr(install, "detect", lambda: machine)


def stamp(environment: Path) -> str:
    path = environment / install.STAMP
    return path.read_text() if path.is_file() else ""


@pytest.mark.parametrize(
    ("machine", "device", "target", "extras"),
    [
        (NO_GPU, False, "rtx", "dev,cpu,rtx"),
        (NO_GPU, True, "cpu", "cpu"),
        (RTX_4090, False, "gpu", "dev,gpu"),
        (RTX_4090, True, "gpu", "gpu"),
        (ORIN, False, "jetson", "dev,jetson"),
        (ORIN, True, "jetson", "jetson"),
    ],
)
def test_machine_gets_its_extras(
    machine: Machine,
    device: bool,
    target: str,
    extras: str,
    at: Callable[[Machine], None],
    commands: Commands,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    at(machine)
    assert install.main([str(tmp_path / "env"), *["--device"] * device]) == 0
    assert commands.extras == [extras] and stamp(tmp_path / "env") == f"{target}\n"
    assert ("--system-site-packages" in commands.lines[0]) == (device or target == "jetson")
    told = capfd.readouterr().out
    assert told.startswith(f"target {target}: ") and told.endswith("TARGET=cpu|gpu|gpu-cu12|jetson|rtx)\n")
    assert told.count("\n") == 1


def test_server_of_the_tests_is_installed_without_dependencies_and_may_be_missing(
    at: Callable[[Machine], None], commands: Commands, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    at(NO_GPU)
    commands.fail = lambda line: "nvidia-pytriton" in line
    assert install.main([str(tmp_path / "env")]) == 0
    assert "--no-deps -c constraints.txt nvidia-pytriton tritonclient" in commands.lines[-1]
    assert "going on without" in capfd.readouterr().out
    for machine, options in ((ORIN, []), (NO_GPU, ["--device"])):
        at(machine)
        commands.lines.clear()
        assert install.main([str(tmp_path / "other"), *options]) == 0
        assert not any("pytriton" in line for line in commands.lines)


@pytest.mark.parametrize("target", TARGETS)
def test_target_can_be_asked_for(
    target: str, at: Callable[[Machine], None], commands: Commands, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    at(NO_GPU)
    assert install.main([str(tmp_path / "env"), "--target", target]) == 0
    assert stamp(tmp_path / "env") == f"{target}\n" and len(commands.extras) == 1
    assert capfd.readouterr().out.startswith(f"target {target}: as asked")


def test_target_is_remembered_until_its_file_is_removed(
    at: Callable[[Machine], None], commands: Commands, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    at(RTX_4090)
    environment = tmp_path / "env"
    for arguments, target in (((), "gpu"), (("--target", "cpu"), "cpu"), ((), "cpu")):
        assert install.main([str(environment), *arguments]) == 0
        assert stamp(environment) == f"{target}\n"
    assert f"target cpu: as asked by an earlier TARGET, remove {environment / install.ASKED}" in capfd.readouterr().out
    (environment / install.ASKED).write_text("no such target\n")
    assert install.main([str(environment)]) == 0 and stamp(environment) == "gpu\n"


@pytest.mark.parametrize(
    ("machine", "target", "fallback"),
    [(RTX_4090, "gpu", "dev,cuda,rtx"), (H200, "gpu", "dev,cuda"), (RTX_3060, "gpu-cu12", "dev,cuda-cu12")],
)
def test_without_tensorrt_the_rest_is_installed_and_one_line_says_so(
    machine: Machine,
    target: str,
    fallback: str,
    at: Callable[[Machine], None],
    commands: Commands,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    at(machine)
    commands.fail = lambda line: f"dev,{target}]" in line
    assert install.main([str(tmp_path / "env"), "--target", target]) == 0
    assert commands.extras == [f"dev,{target}", fallback] and stamp(tmp_path / "env") == f"{target}\n"
    said = capfd.readouterr().out.splitlines()
    assert len(said) == 2 and said[1].startswith("TensorRT cannot be installed, its libraries come from NVIDIA's own")
    assert (tmp_path / "env/tensorrt.log").is_file() and str(tmp_path / "env/tensorrt.log") in said[1]


@pytest.mark.parametrize("machine", [NO_GPU, RTX_4090, ORIN])
def test_failure_leaves_no_stamp(
    machine: Machine,
    at: Callable[[Machine], None],
    commands: Commands,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    at(machine)
    commands.fail = lambda line: " install " in line
    assert install.main([str(tmp_path / "env")]) == 1
    assert stamp(tmp_path / "env") == ""
    assert ("make engine BUNDLE=" in capfd.readouterr().err) == (machine is ORIN)


def test_failure_to_create_the_environment_ends_at_once(
    at: Callable[[Machine], None], commands: Commands, tmp_path: Path
) -> None:
    at(NO_GPU)
    commands.fail = lambda line: "-m venv" in line
    assert install.main([str(tmp_path / "env")]) == 1
    assert len(commands.lines) == 1


def test_other_target_removes_the_onnxruntime_of_the_first(
    at: Callable[[Machine], None], commands: Commands, tmp_path: Path
) -> None:
    """Both distributions write one folder, and removing the one later would damage the other."""
    at(NO_GPU)
    for target, uninstalls in (("rtx", 0), ("rtx", 0), ("gpu", 1), ("gpu", 0), ("cpu", 1)):
        commands.lines.clear()
        assert install.main([str(tmp_path / "env"), "--target", target]) == 0
        removed = [line for line in commands.lines if " uninstall " in line]
        assert len(removed) == uninstalls and all("onnxruntime onnxruntime-gpu" in line for line in removed)


def test_installer_runs_with_the_standard_library_alone() -> None:
    command = [sys.executable, "-S", "-m", "export.install", "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options: dict[str, Any] = {"cwd": REPOSITORY, "env": environment, "capture_output": True, "text": True}
    result = subprocess.run(command, check=False, **options)
    assert result.returncode == 0 and "folder of the virtual environment" in result.stdout and result.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["--device"]])
def test_installer_ends_with_the_code_of_what_fails(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "export.install", tmp_path / "file" / "env", *arguments]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode != 0


def make(*arguments: str, **options: Any) -> str:
    command = ["make", "--dry-run", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, **options).stdout


@pytest.fixture
def environments(tmp_path: Path) -> Iterator[list[str]]:
    """Return the arguments that give make two environments that are installed for the target gpu."""
    now = (REPOSITORY / "Makefile").stat().st_mtime + 1e9
    for name in ("installed", "device-installed"):
        (tmp_path / name).write_text("gpu\n")
        subprocess.run(["touch", "-d", f"@{now:.0f}", tmp_path / name], check=True)
    (tmp_path / "device").mkdir()
    (tmp_path / "device-installed").rename(tmp_path / "device/installed")
    yield [f"INSTALLED={tmp_path / 'installed'}", f"DEVICE={tmp_path / 'device'}"]


@pytest.mark.parametrize(
    ("goal", "options"), [("engine", ""), ("engine", " --device"), ("test", ""), ("bundle", ""), ("install", "")]
)
def test_make_installs_for_another_target_only(goal: str, options: str, environments: list[str]) -> None:
    bundle = ["BUNDLE=b.zip"] if options else []
    installer = f"-m export.install {environments[1][7:] if options else '.venv'}{options} "
    assert installer not in make(goal, *bundle, *environments)
    assert installer not in make(goal, *bundle, *environments, "TARGET=gpu")
    assert f"{installer}--target gpu-cu12" in make(goal, *bundle, *environments, "TARGET=gpu-cu12")
    fresh = make(goal, *bundle, "INSTALLED=no/installed", "DEVICE=no/device")
    assert f"-m export.install {'no/device' if options else '.venv'}{options}" in fresh


def resolve(extras: str, tmp_path: Path) -> tuple[set[str], str]:
    """Ask pip which distributions it would install; return their names, or what it says if it cannot."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", report]
    options = ["--disable-pip-version-check", "-c", "constraints.txt", f".[{extras}]"]
    result = subprocess.run([*command, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if result.returncode:
        return set(), result.stderr
    found = json.loads(report.read_text())["install"]
    return {re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower() for each in found}, ""


def skip_without_index(said: str) -> None:
    if re.search(
        r"No matching distribution found for setuptools|ConnectionError|Temporary failure|Read timed out", said
    ):
        pytest.skip(f"no package index is reached: {' '.join(said.split())[-200:]}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extras", "runtime"),
    [
        ("cpu,rtx", "onnxruntime"),
        ("jetson", "onnxruntime"),
        ("cuda-cu12", "onnxruntime-gpu"),
        ("dev,bench,cuda,rtx", "onnxruntime-gpu"),  # dev and bench include all extras that are not for a machine
    ],
)
def test_extras_resolve_to_one_onnxruntime(extras: str, runtime: str, tmp_path: Path) -> None:
    names, said = resolve(extras, tmp_path)
    skip_without_index(said)
    assert not said
    if sys.version_info < (3, 11) and "cuda," in extras:
        runtime = "onnxruntime"  # no wheel of onnxruntime-gpu for CUDA 13 is for Python 3.10
    assert {"onnxruntime", "onnxruntime-gpu"} & names == {runtime}
    assert ("tensorrt-rtx-cu13-libs" in names) == ("rtx" in extras)
    assert ("torch" in names) == ("dev" in extras)


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "libraries"), [("gpu", "tensorrt_cu13_libs"), ("gpu-cu12", "tensorrt_cu12_libs")])
def test_tensorrt_is_all_that_the_gpu_extras_may_lack(extra: str, libraries: str, tmp_path: Path) -> None:
    names, said = resolve(extra, tmp_path)
    skip_without_index(said)
    if said:
        assert libraries in said or libraries.replace("_", "-") in said
        pytest.skip(f"the build of {libraries} asks NVIDIA's own index, which is not reached")
    assert "onnxruntime" not in names and libraries.replace("_", "-") in names
