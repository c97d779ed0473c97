"""Opens an artifact folder in a process of its own: what is damaged behind a manifest that lies may crash a library.

``Reconstructor.open`` trusts a manifest, whose SHA-256 it checks; ``ccnet check`` comes here first.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError


def survive(folder: Path, backend: str, precision: str) -> None:
    """CCNetError where opening the folder fails, or kills the process that tries."""
    judge(folder, [sys.executable, "-m", __name__, str(folder), backend, precision])


def judge(folder: Path, command: list[str]) -> None:
    """Run a command that opens the folder; CCNetError, in one line, unless it ends well."""
    child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if child.returncode == 0:
        return
    if child.returncode == 2:
        raise CCNetError(" ".join(child.stderr.split()))
    how = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
    raise CCNetError(
        f"{folder}: opening it ends the process ({how}), its files are not what the manifest says: export and build it"
        " again"
    )


def main(folder: str, backend: Any, precision: Any) -> int:
    """Exit code: 0 opened, 2 refused, with the reason on stderr."""
    from .reconstructor import Reconstructor

    try:
        Reconstructor.open(folder, backend=backend, precision=precision).close()
    except CCNetError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
