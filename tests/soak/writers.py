"""A second writer on the sinks of the soak test: a process that ends and starts again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ccnet.contract import CCNetError
from ccnet.runtime import read_cube
from ccnet.runtime.stream.sinks import open_sink

SOURCE = "second writer"
RUN_S = 3
"""Time that each process writes."""


class SecondWriter(threading.Thread):
    """Processes, one after another, that write numbered cubes without names to every sink on disk.

    Each process fails unless the address of a stream's socket is refused to it.
    """

    def __init__(self, sinks: list[Path], socket: str, until: float) -> None:
        super().__init__(name="second writer")
        self._sinks, self._socket, self._until = sinks, socket, until
        self.written = self.starts = self.failures = self.duplicates = 0
        self._found = {sink: bytearray() for sink in sinks}

    def run(self) -> None:
        while time.monotonic() < self._until:
            command = [sys.executable, __file__, str(self.written), self._socket, *map(str, self._sinks)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                for line in process.stdout or ():
                    self.written = int(line) + 1
            self.failures += process.returncode != 0
            self.starts += 1

    def read_back(self, folder: Path) -> int:
        """Read, check and remove the cubes of a folder or a Zarr group, and return the number of the streams' own."""
        own = 0
        for header in folder.glob("[!.]*.hdr"):  # a hidden cube is another writer's, and not published yet
            found = re.search(rf"ccnet source = {SOURCE}\n", header.read_text())
            number = re.search(r"ccnet frame id = (\d+)\n", header.read_text())
            read_cube(header)
            header.unlink()
            header.with_suffix(".img").unlink()
            own += not found
            if found and number:
                self._mark(folder, int(number[1]))
        for path in [path for path in folder.glob("0*") if path.is_dir()]:
            array: Any = zarr.open_array(str(path), mode="r")
            values, attributes = np.asarray(array[:]), dict(array.attrs)
            assert np.isfinite(values).all() and values.any()
            shutil.rmtree(path.rename(folder.with_name(f"read-{path.name}")))  # not emptied under its name
            own += attributes.get("source") != SOURCE
            if attributes.get("source") == SOURCE:
                self._mark(folder, int(attributes["frame id"]))
        return own

    def problems(self) -> list[str]:
        """Return what went wrong, after the last cubes were read back."""
        print(
            f"second writer: {self.starts} starts, {self.written} cubes to each of {len(self._sinks)} sinks", end="; "
        )
        lost = {sink.name: self.written - sum(found) for sink, found in self._found.items()}
        print(f"lost {lost}, {self.duplicates} duplicates")
        wrong = [f"the second writer lost {count} cubes in {name}" for name, count in lost.items() if count]
        wrong += [f"{self.duplicates} duplicate cubes of the second writer"] if self.duplicates else []
        wrong += [f"the second writer failed {self.failures} times"] if self.failures else []
        return wrong if self.starts > 1 and self.written else [*wrong, "the second writer was never started again"]

    def _mark(self, sink: Path, number: int) -> None:
        found = self._found[sink]
        found.extend(bytes(max(0, number + 1 - len(found))))
        self.duplicates += found[number]
        found[number] = 1


def main(first: str, socket: str, *paths: str) -> None:
    """Write cubes to all sinks for some seconds, and print the number of each that they have."""
    with suppress(CCNetError):
        open_sink(socket)
        sys.exit(f"{socket}: could be taken over")
    sinks, until, number = [open_sink(path) for path in paths], time.monotonic() + RUN_S, int(first)
    while time.monotonic() < until:
        for sink in sinks:
            with sink.cube(None, 16, 16, {"source": SOURCE, "frame id": str(number)}) as writer:
                writer.write(0, np.full((31, 16, 16), number + 1, np.float32))
        print(number, flush=True)
        number += 1
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
