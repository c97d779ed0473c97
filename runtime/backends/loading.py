"""Load the files of an artifact folder: verified, compared with the manifest, with the sizes that they accept."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import MANIFEST_KEY, Artifact, CCNetError, Closeable, Manifest, prefix_errors
from ccnet.contract.manifest import ONNX_FORMATS
from ccnet.runtime.backends.base import Backend
from ccnet.runtime.backends.onnx_header import read_metadata
from ccnet.runtime.backends.onnxruntime import check_threads, library_name, refuse_external
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.gpu.scratch import Scratch

_LARGEST_SIDE = 1 << 30
"""Longest side of an ONNX graph's input, px: there is no limit."""


@dataclass(frozen=True)
class SizeLimits:
    """Shortest and longest side, px, that a graph or engine accepts."""

    least: int
    most: int

    @classmethod
    def of(cls, artifact: Artifact, multiple: int) -> SizeLimits:
        """Return the limits of a file: an engine's are in its ``details["window"]``, ONNX accepts all sizes.

        Args:
            artifact: Entry of the file.
            multiple: Number that both limits must be multiples of, px.

        Returns:
            The limits.

        Raises:
            CCNetError: The limits in the manifest are not valid.
        """
        bounds = artifact.details.get("window", [multiple, _LARGEST_SIDE])
        try:
            least, most = map(int, bounds)
        except (TypeError, ValueError):
            least = most = 0
        if not 0 < least <= most or least % multiple or most % multiple:
            raise CCNetError(f"{artifact.file}: tile limits are {bounds!r}, expected [least, most] px: build it again")
        return cls(least, most)


class LockedBackend:
    """A backend that threads share. Backends with the same lock run one at a time."""

    def __init__(self, backend: Backend, lock: threading.Lock) -> None:
        self.name = backend.name
        self._backend = backend
        self._lock = lock
        self._process = os.getpid()
        self._closed = False

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], output: str) -> npt.NDArray[np.float32]:
        """Run the graph once.

        Args:
            feeds: Input name → array.
            output: Name of an output.

        Returns:
            The array of this output.

        Raises:
            CCNetError: The backend is closed, was opened in a process that this one was forked from, an input does not
                fit, or there is no such output.
        """
        if os.getpid() != self._process:  # its threads, and maybe the owner of its lock, stayed in that process
            raise CCNetError("the reconstructor was opened before this process was forked: open the folder again here")
        with self._lock:
            if self._closed:
                raise CCNetError("the reconstructor is closed: open the folder again")
            outputs = self._backend.run(feeds)
        if output not in outputs:
            raise CCNetError(f"outputs are {', '.join(outputs)}, expected {output}: export again")
        return outputs[output]

    def close(self) -> None:
        """Close the backend after a run that another thread may have started; harmless when called twice.

        In a process that was forked after it was opened, nothing is done: its threads are not here to be ended.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            self._backend.close()


class LazyBackend(Closeable):
    """A backend that loads its file when it runs for the first time. ``LockedBackend`` keeps threads apart."""

    def __init__(self, name: str, load: Callable[[], Backend]) -> None:
        """Remember how to load the file.

        Args:
            name: Library, version and device.
            load: Loads the file; a CCNetError if that fails.
        """
        self.name = name
        self._load: Callable[[], Backend] | None = load
        self._backend: Backend | None = None

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Load the file if that has not been done, and run the graph once."""
        if self._backend is None:
            if self._load is None:
                raise CCNetError(f"{self.name} is closed: open the model again")
            self._backend = self._load()
            self._load = None  # it may hold the content of the file
        return self._backend.run(feeds)

    def close(self) -> None:
        """Free what was loaded; harmless when called twice."""
        self._load = None
        if self._backend is not None:
            self._backend.close()


def open_backend(
    selection: Selection, artifact: Artifact, threads: int | None, scratch: Scratch | None = None
) -> Backend:
    """Verify a file and load it; on ONNX Runtime's CPU provider, load it when it runs for the first time.

    A frame of one tile needs one graph of three, and each takes time and memory to load. The SHA-256 is verified at
    once, and of an ONNX file that it is whole and has the folder's manifest in it. The content that was verified is
    kept, and that is what is loaded, even if the folder is exported anew in the meantime.

    Args:
        selection: The backend and the folder.
        artifact: Entry of the file.
        threads: CPU threads of ONNX Runtime; None is one per core.
        scratch: Scratch memory of engines, to share among backends that never run at the same time.

    Returns:
        The backend, which the caller must close.

    Raises:
        CCNetError: The file, or the copy of the manifest in an ONNX file, is another.
    """
    data, path = selection.folder.read(artifact), selection.folder.path / artifact.file

    def load() -> Backend:
        with prefix_errors(path):
            return selection.open(artifact, data, threads, scratch)

    with prefix_errors(path):
        if artifact.format in ONNX_FORMATS:
            _check_manifest(read_metadata("the ONNX model", data), selection.folder.manifest)
            refuse_external("the ONNX model", data)
        if selection.backend == "onnxruntime":
            check_threads(threads)
            return LazyBackend(library_name("cpu"), load)
    return load()


def _check_manifest(metadata: Mapping[str, str], manifest: Manifest) -> None:
    if MANIFEST_KEY not in metadata:
        raise CCNetError("an ONNX model without ccnet's manifest, expected one made by 'ccnet export'")
    copy = Manifest.from_json(metadata[MANIFEST_KEY])
    # Tools may differ: a folder can gain engines, and the graphs can be copied from machine to machine
    if replace(copy, artifacts=(), tools={}) != replace(manifest, artifacts=(), tools={}):
        raise CCNetError("manifest mismatch: the file and its folder are of different exports; export again")
