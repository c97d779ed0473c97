"""``make test-arm64``: the wheel, the source archive and a bundle on an emulated arm64 Debian.

It needs root and Debian's qemu-user-static, mmdebstrap and arch-test, which it installs where apt can; elsewhere it
says why it is skipped. The first run downloads Debian into build/arm64, which takes some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEBIAN, PYTHON = "bookworm", "3.11"  # Debian 12
PROGRAMS = {"qemu-aarch64-static": "qemu-user-static", "mmdebstrap": "mmdebstrap", "arch-test": "arch-test"}
EMULATORS = Path("/proc/sys/fs/binfmt_misc")
QEMU = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (17, 26, 27, 28)] + ["manylinux2014_aarch64"]
PARITY_ROWS = {".whl": 3, ".gz": 6}
"""Suffix → rows that must pass: full, encode and decode, with compiled kernels each of them fused and unrolled."""


class SkipError(Exception):
    """The reason why nothing can be tested here."""


def main() -> int:
    """Run the command and return its exit code: 0 if all passes or nothing can be tested here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder for Debian, packages and the bundle")
    parser.add_argument("frame", type=Path, help="frame of the bundle's golden outputs")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        prepare_host()
        with emulate_arm64():
            root = create_debian(folder)
            work = root / "ccnet"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            collect(work, options.frame)
            compiled = [check(root, artifact) for artifact in ("*.whl", "*.tar.gz")]
    except SkipError as reason:
        print(f"skipped: {reason}")
        return 0
    if compiled != [False, True]:
        raise SystemExit(f"compiled kernels in wheel and archive: {compiled}, expected none and some")
    print("arm64: the wheel and the source archive pass")
    return 0


def run(*command: object, environment: dict[str, str] | None = None) -> str:
    """Run a command in the repository, echo its output, and return it; end the program if it fails."""
    result = subprocess.run(
        list(map(str, command)),
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(result.stdout, end="", flush=True)
    if result.returncode:
        raise SystemExit(f"exit code {result.returncode} of {' '.join(map(str, command))}")
    return result.stdout


def prepare_host() -> None:
    """Install the programs that are missing, or raise a SkipError."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SkipError("needs root on Linux, to register an emulator and to change the root folder")
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise SkipError(f"Debian's {', '.join(missing)} cannot be installed")


@contextlib.contextmanager
def emulate_arm64() -> Iterator[None]:
    """Let the kernel run arm64 programs by QEMU inside the block."""
    mounted, entry = (EMULATORS / "register").exists(), EMULATORS / "qemu-aarch64"
    if not mounted and subprocess.run(["mount", "-t", "binfmt_misc", "none", EMULATORS], check=False).returncode:
        raise SkipError("this kernel has no binfmt_misc")
    registered = entry.exists()
    if not registered:
        (EMULATORS / "register").write_text(QEMU.read_text().splitlines()[-1])
    try:
        yield
    finally:
        if not registered:
            entry.write_text("-1")
        if not mounted:
            subprocess.run(["umount", EMULATORS], check=False)


def create_debian(folder: Path) -> Path:
    """Create the root folder of an arm64 Debian with Python and a C compiler, unless it is there."""
    root = folder / "root"
    if not (root / "complete").is_file():
        shutil.rmtree(root, ignore_errors=True)
        options = ["--architectures=arm64", "--variant=apt", "--mode=root", "--include=python3-venv,gcc,libc6-dev"]
        run("mmdebstrap", *options, DEBIAN, root)
        (root / "complete").touch()
    return root


def collect(work: Path, frame: Path) -> None:
    """Put the packages for arm64, what ``make dist`` wrote, and a bundle of 64 px into Debian's folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    target = ["--only-binary=:all:", f"--python-version={PYTHON}", *(f"--platform={name}" for name in PLATFORMS)]
    packages = ["filelock", "numpy", "onnxruntime", "setuptools>=77"]
    run(*pip, "download", "--quiet", *target, "-c", "constraints.txt", "-d", work / "packages", *packages)
    for path in (REPOSITORY / "dist").iterdir():
        shutil.copy(path, work)
    artifacts = work.parents[1] / "artifacts"
    ccnet = Path(sys.executable).with_name("ccnet")
    run(ccnet, "export", artifacts)
    run(ccnet, "bundle", artifacts, "--frames", frame, "--side", 64, "--out", work / "bundle.zip")


def check(root: Path, artifact: str) -> bool:
    """Install an artifact in a new environment inside Debian and run the bundle there.

    Args:
        root: Debian's root folder.
        artifact: Pattern of the artifact's name.

    Returns:
        True if the package has compiled kernels there, with NEON instructions.
    """
    (path,) = (root / "ccnet").glob(artifact)
    home = f"/ccnet/{'wheel' if path.suffix == '.whl' else 'archive'}"
    install = f"{home}/bin/pip install --quiet --no-index --no-build-isolation --find-links /ccnet/packages"
    inside(root, f"python3 -m venv {home} && {install} 'setuptools>=77' && {install} '/ccnet/{path.name}[cpu]'")
    print(f"\n{path.name} on {inside(root, 'uname -m').strip()}", flush=True)
    library = inside(root, f"find {home}/lib -name '_kernels*.so'").strip()
    vectors = inside(root, f"objdump -d {library} | grep -cE 'fmla\\s+v[0-9]+\\.4s'") if library else "0"
    report = inside(root, f"{home}/bin/python -m ccnet.export.device /ccnet/bundle.zip {home}/folder")
    rows = len(re.findall(r"^passes ", report, re.MULTILINE))
    if rows != PARITY_ROWS[path.suffix] or "FAILS" in report:
        raise SystemExit(f"{path.name}: {rows} rows pass, expected {PARITY_ROWS[path.suffix]} and no failure")
    return int(vectors) > 0


def inside(root: Path, command: str) -> str:
    """Run a shell command inside Debian and return its output."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    return run("chroot", root, "/bin/sh", "-ec", command, environment=environment)


if __name__ == "__main__":
    sys.exit(main())
