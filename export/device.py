"""``python -m ccnet.export.device BUNDLE FOLDER``, on a device such as a camera: unpack a bundle, build and check.

It needs Python 3.10, numpy and ONNX Runtime or the system's TensorRT, and neither torch nor the command line's
libraries.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from ccnet.contract import ArtifactFolder, CCNetError, write_atomic
from ccnet.export.engine.budget import DECODE_SIDE
from ccnet.export.engine.plan import EngineSet, Request, build, choose
from ccnet.runtime.io.artifact_lock import lock_artifacts

from .bundle import unpack
from .fingerprint import CHECKED, check_fingerprint, has_passed
from .reference import golden
from .verify import Comparison, check


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 all is well, 1 a check fails, 2 an error, in one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m ccnet.export.device", description=__doc__)
    parser.add_argument("bundle", type=Path, help="file written by 'ccnet bundle'")
    parser.add_argument("folder", type=Path, help="folder for graphs and engines")
    parser.add_argument("--backend", choices=get_args(Request), default="auto", help="engines to build")
    parser.add_argument("--tile", "--window", type=int, default=DECODE_SIDE, help="largest side of a tile, px")
    parser.add_argument("--memory", type=float, help="MB of GPU memory that the engines may take; decides the tile")
    parser.add_argument("--no-full", dest="full", action="store_false", help="build none for frames in one pass")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    options = parser.parse_args(arguments)
    try:
        unpack(options.bundle, options.folder)
        print(f"{options.folder}: unpacked, every file is what the manifest vouches for")
        with lock_artifacts(options.folder, say=print):
            backend, why = choose(options.backend, options.device)
            print(f"engines of {backend}: {why}" if backend else f"no engine built: {why}")
            if backend is not None:
                wanted = EngineSet(backend=backend, tile=options.tile, device=options.device, full=options.full)
                _build(options.folder, wanted, options.memory)
        return _check(options.folder, options.device)
    except (CCNetError, OSError) as error:
        print("ccnet:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2


def _build(folder: Path, wanted: EngineSet, memory: float | None) -> None:
    """Build the engines of a folder that are missing, within a budget of MB of GPU memory if there is one."""
    if memory is not None:
        wanted = wanted.within(int(memory * 1e6), ArtifactFolder.open(folder).manifest)
    _, reports = build(folder, wanted, progress=_print_progress)
    for report in reports:
        print(f"built in {report.seconds:.0f} s: {report.bytes / 1e6:.1f} MB from {report.layers} layers")
    print("\n".join(dict.fromkeys(report.purpose for report in reports)) or "engines are up to date")


def _print_progress(phase: str, done: int, steps: int) -> None:
    """Print a line that the next one overwrites, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{phase[:60]:60} {done}/{steps}\033[K", end="\n" if done == steps else "", file=sys.stderr, flush=True)


def _check(folder: Path, device: int) -> int:
    """Print a line for each comparison with the golden outputs, unless all of them have passed before."""
    opened = ArtifactFolder.open(folder)
    fingerprint = check_fingerprint(opened, None, [], [], device)
    if has_passed(folder, opened, fingerprint):
        print("up to date: this check has passed before")
        return 0
    broken = False
    for reference in golden(opened.read(opened.find("golden", format="npz")), opened.manifest):
        height, width = reference.frame.shape[:2]
        print(f"\n{reference.source}, {width}×{height} px, against {reference.made_by}")
        for comparison in check(opened, reference, device=device):
            print(_line(comparison))
            broken |= bool(comparison.broken)
    write_atomic(folder / CHECKED, json.dumps({"inputs": fingerprint, "passed": not broken}).encode())
    return int(broken)


def _line(comparison: Comparison) -> str:
    return f"{comparison.verdict:9}{comparison.what:38}{comparison.parity or ''}  [{comparison.backend}]"


if __name__ == "__main__":
    sys.exit(main())
