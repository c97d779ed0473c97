"""``python3 -m export.install ENVIRONMENT``, in the repository: an environment with the packages that fit this machine.

The standard library alone, as it runs with the system's Python before anything is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import IO, get_args

from .machine import Choice, Machine, Target, choose, detect, rtx_runs_on

STAMP = "installed"
"""File in the environment that holds its target."""

ASKED = "asked-target"
"""File in the environment that holds the target that TARGET asked for last, for later installations without TARGET."""

EXTRAS: dict[Target, str] = {
    "cpu": "cpu",
    "gpu": "gpu",
    "gpu-cu12": "gpu-cu12",
    "jetson": "jetson",
    "rtx": "cpu,rtx",
}
"""Target → extras of this package."""

SERVER_FOR_TESTS = ("nvidia-pytriton", "tritonclient", "python-rapidjson")
"""Packages of the extra ``serve`` that the tests start. Without their dependencies: nvidia-pytriton wants numpy 1 for
parts that are not used, and tritonclient an older protobuf than there is, whose messages the newer one reads."""

WITHOUT_TENSORRT: dict[Target, str] = {"gpu": "cuda", "gpu-cu12": "cuda-cu12"}
"""Target → the extra that leaves TensorRT out, whose libraries come from NVIDIA's own index."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code, that of pip."""
    parser = argparse.ArgumentParser(prog="python3 -m export.install", description=__doc__)
    parser.add_argument("environment", type=Path, help="folder of the virtual environment")
    parser.add_argument("--target", choices=get_args(Target), help="instead of the target that fits this machine")
    parser.add_argument("--device", action="store_true", help="a camera's computer: the runtime alone, without torch")
    options = parser.parse_args(arguments)
    machine = detect()
    chosen = choose(machine, build_without_gpu=not options.device)
    if asked := _asked(options.environment, options.target):
        chosen = asked
    print(f"target {chosen.target}: {chosen.why} (another: make … TARGET={'|'.join(get_args(Target))})", flush=True)
    code = _prepare(options.environment, chosen.target, device=options.device)
    if options.target and code == 0:
        (options.environment / ASKED).write_text(f"{options.target}\n")
    code = code or _install(options.environment, chosen.target, machine, device=options.device)
    if code == 0 and not options.device and machine.system == "Linux x86_64":
        _install_server(options.environment)
    if code == 0:
        (options.environment / STAMP).write_text(f"{chosen.target}\n")
    elif chosen.target == "jetson" and not options.device:
        print(
            "without torch on this Jetson: make bundle on a desktop, then make engine BUNDLE=ccnet-bundle.zip here"
            " (docs/jetson.md)",
            file=sys.stderr,
        )
    return code


def _asked(environment: Path, target: Target | None) -> Choice | None:
    """Return the target that TARGET asks for, now or in an earlier installation; None where it never did."""
    if target:
        return Choice(target, "as asked by TARGET")
    remembered = environment / ASKED
    earlier = remembered.read_text().strip() if remembered.is_file() else ""
    known = next((known for known in get_args(Target) if known == earlier), None)
    return Choice(known, f"as asked by an earlier TARGET, remove {remembered} to forget it") if known else None


def _prepare(environment: Path, target: Target, *, device: bool) -> int:
    """Create the virtual environment, and remove the ONNX Runtime of another target, as they share one folder."""
    existed = (environment / "pyvenv.cfg").is_file()
    system = ["--system-site-packages"] if device or target == "jetson" else []
    if code := _call(sys.executable, "-m", "venv", *system, str(environment)):
        return code
    stamp = environment / STAMP
    if existed and (not stamp.is_file() or stamp.read_text().strip() != target):
        stamp.unlink(missing_ok=True)
        _call(*_pip(environment), "uninstall", "-qq", "--yes", "onnxruntime", "onnxruntime-gpu")
    return 0


def _install(environment: Path, target: Target, machine: Machine, *, device: bool) -> int:
    """Install the package in place with a target's extras; without TensorRT if that alone cannot be installed."""
    base = "" if device else "dev,"
    if target not in WITHOUT_TENSORRT:
        return _install_extras(environment, base + EXTRAS[target])
    log = environment / "tensorrt.log"
    with log.open("w") as output:
        code = _install_extras(environment, base + EXTRAS[target], output)
    if code == 0:
        return 0
    fallback = WITHOUT_TENSORRT[target] + (",rtx" if rtx_runs_on(machine) else "")
    print(
        f"TensorRT cannot be installed, its libraries come from NVIDIA's own index (pip's words: {log}):"
        f" going on without, extras {fallback}",
        flush=True,
    )
    return _install_extras(environment, base + fallback)


def _install_extras(environment: Path, extras: str, output: IO[str] | None = None) -> int:
    arguments = ("install", "--quiet", "-c", "constraints.txt", "-e", f".[{extras}]")
    return _call(*_pip(environment), *arguments, output=output)


def _install_server(environment: Path) -> None:
    """Install the server that the tests start; the environment is complete without it."""
    arguments = ("install", "--quiet", "--no-deps", "-c", "constraints.txt", *SERVER_FOR_TESTS)
    if _call(*_pip(environment), *arguments):
        print("tritonserver cannot be installed: going on without, its tests are skipped", flush=True)


def _pip(environment: Path) -> tuple[str, ...]:
    return str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check"


def _call(*command: str, output: IO[str] | None = None) -> int:
    """Run a command and return its exit code; its words go to ``output``, or to the terminal."""
    return subprocess.run(command, stdout=output, stderr=output, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
