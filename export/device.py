"""On a camera's computer: ``python -m ccnet.export.device BUNDLE FOLDER`` unpacks, builds, checks.

It needs Python 3.10, numpy and ONNX Runtime or the system's TensorRT, and neither torch nor the command line's
libraries.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from ccnet.contract import CCNetError, Manifest, write_atomic
from ccnet.export.engine.plan import Asked, Options, build, choose

from .bundle import unpack
from .fingerprint import CHECKED, check_fingerprint, has_passed
from .reference import golden
from .verify import Row, check


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 all is well, 1 a check fails, 2 an error, in one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m ccnet.export.device", description=__doc__)
    parser.add_argument("bundle", type=Path, help="made by 'ccnet bundle'")
    parser.add_argument("folder", type=Path, help="where graphs and engines go")
    parser.add_argument("--backend", choices=get_args(Asked), default="auto", help="whose engines")
    parser.add_argument("--window", type=int, default=512, help="largest side of a tile, px")
    given = parser.parse_args(arguments)
    try:
        unpack(given.bundle, given.folder)
        print(f"{given.folder}: unpacked, every file is what the manifest vouches for")
        _build(given.folder, given.backend, given.window)
        return _check(given.folder)
    except (CCNetError, OSError) as error:
        print("ccnet:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2


def _build(folder: Path, asked: Asked, window: int) -> None:
    """The best engines that this machine can have, or a line on why it has none."""
    flavour, why = choose(asked)
    print(f"engines of {flavour}: {why}" if flavour else f"no engine built: {why}")
    if flavour is None:
        return
    _, reports = build(folder, Options(backend=flavour, window=window), progress=_tell)
    for report in reports:
        print(f"built in {report.seconds:.0f} s: {report.bytes / 1e6:.1f} MB from {report.layers} layers")
    print("\n".join(dict.fromkeys(report.purpose for report in reports)) or "engines are up to date")


def _tell(phase: str, done: int, steps: int) -> None:
    """A line that is written over, for people alone."""
    if sys.stderr.isatty():
        print(f"\r{phase[:60]:60} {done}/{steps}\033[K", end="\n" if done == steps else "", file=sys.stderr, flush=True)


def _check(folder: Path) -> int:
    """A line for each comparison with the golden outputs, unless all have passed before."""
    manifest, inputs = Manifest.read(folder), check_fingerprint(folder, None, [], [])
    if has_passed(folder, folder, inputs):
        print("up to date: this check has passed before")
        return 0
    broken = False
    for reference in golden(manifest.find("golden", format="npz").read(folder), manifest):
        height, width = reference.frame.shape[:2]
        print(f"\n{reference.source}, {width}×{height} px, against what {reference.made_by} made of it")
        for row in check(folder, reference):
            print(_line(row))
            broken |= bool(row.broken)
    write_atomic(folder / CHECKED, json.dumps({"inputs": inputs, "passed": not broken}).encode())
    return int(broken)


def _line(row: Row) -> str:
    return f"{row.verdict:9}{row.what:38}{row.parity or ''}  [{row.backend}]"


if __name__ == "__main__":
    sys.exit(main())
