"""A sink of cubes into a ROS 2 bag: an image message for each topic of each cube."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import CCNetError, write_atomic
from ccnet.runtime.io.cubes import CubeWriter
from ccnet.runtime.io.files import optional_module

from ..sink import as_texts, write_errors
from .bag_file import BagFile, message_types
from .images import ImageFields
from .topics import DEFAULT_TOPICS, TopicImages, parse_topics

FILE_BYTES = 256_000_000
"""Bytes of images at which a file of the bag is complete; a process that is killed loses the file in work."""

_SPARE_BYTES = 4_000_000
"""Free space to leave on the disk for the headers and the index of a file, bytes."""

DEFAULT_FRAME = "camera"
"""``frame_id`` of frames whose source names no coordinate frame."""

_OF_A_FRAME = ("frame id", "captured", "coordinate frame")
"""Metadata that differ from frame to frame; the others describe the bag."""


class RosBagSink:
    """A new ROS 2 bag with the images of each cube, stamped with the time of its capture.

    The bag is a folder of MCAP files and ``metadata.yaml``, split as ROS splits bags: a file appears when it holds
    256 MB of images or the stream ends, and the bag is whole after each file. The whole cube and its message are in
    memory, about five times the cube; single bands and the preview take less.
    """

    def __init__(self, text: str, file_bytes: int = FILE_BYTES) -> None:
        """Create the bag's folder.

        Args:
            text: Path of the new bag, maybe with ``?topics=`` and a list for ``parse_topics``.
            file_bytes: Bytes of images at which a file is complete.

        Raises:
            CCNetError: The path exists, a topic is unknown, or rosbags is not installed.
        """
        path, _, topics = text.partition("?topics=")
        self._topics = parse_topics(topics or DEFAULT_TOPICS)
        self._types = message_types()
        self.name, self._path, self._file_bytes = f"rosbag:{path}", Path(path), file_bytes
        self._file: BagFile | None = None
        self._information: dict[str, Any] | None = None
        self._files = 0
        self._pending = 0  # delivered cubes in the file in work
        self._lost = 0
        with write_errors(self.name):
            try:
                self._path.mkdir(parents=True)
            except FileExistsError as error:
                raise CCNetError(f"{self.name}: exists and is kept, expected a new name for a bag") from error

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        """Yield the writer of a cube's images; CCNetError if they do not fit a message or the disk."""
        images = TopicImages(self._topics, height, width)
        yield images
        fields = images.fields()
        with write_errors(self.name):
            self._check_space(sum(image.data.size for image in fields.values()))
        self._write(fields, as_texts(metadata))

    def close(self) -> None:
        """Complete the bag; CCNetError if its last file cannot be, with the number of cubes that are lost with it."""
        failure: CCNetError | None = None
        try:
            self._publish()
        except CCNetError as error:
            failure = error
        if not self._files:
            with suppress(OSError):
                self._path.rmdir()
        if self._lost:
            raise CCNetError(
                f"{self.name}: {self._lost} delivered cubes are lost, as the disk refused their file; make room and "
                "stream these frames again into another bag"
            ) from failure
        if failure:
            raise failure

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._path).free
        if free < needed + _SPARE_BYTES:
            raise CCNetError(f"{self.name}: {free / 1e6:.0f} MB are free, a cube needs {needed / 1e6:.0f}; make room")

    def _write(self, fields: Mapping[str, ImageFields], metadata: Mapping[str, str]) -> None:
        """Append a cube's messages, and complete the file when it is large enough."""
        with self._discard_on_error():
            if self._file is None:
                facts = {key: value for key, value in metadata.items() if key not in _OF_A_FRAME}
                self._file = BagFile(self._path, self._types, self._topics, facts)
            frame = metadata.get("coordinate frame", DEFAULT_FRAME)
            self._file.write(fields, capture_ns(metadata.get("captured", "")), frame)
        if self._file.size >= self._file_bytes:
            self._publish()
        else:
            self._pending += 1

    def _publish(self) -> None:
        """Complete the file in work, if there is one, and list it in metadata.yaml."""
        if (file := self._file) is None:
            return
        with self._discard_on_error():
            information = file.publish(self._path / f"{self._path.name}_{self._files}.mcap")
        self._file, self._files, self._pending = None, self._files + 1, 0
        self._information = joined(self._information, information)
        text = io.StringIO()
        yaml = optional_module("ruamel.yaml", "ros").YAML(typ="safe")
        yaml.default_flow_style = False
        yaml.dump({"rosbag2_bagfile_information": self._information}, text)
        write_atomic(self._path / "metadata.yaml", text.getvalue().encode())

    @contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        """Delete the file in work where the disk refuses it, and count the cubes that are lost with it."""
        try:
            with write_errors(self.name):
                yield
        except CCNetError:
            if (file := self._file) is not None:
                self._lost += self._pending
                self._file, self._pending = None, 0
                file.discard()
            raise


def capture_ns(text: str) -> int:
    """Return nanoseconds since 1970 of a time in UTC such as ``2026-11-30T12:00:00.123456789+00:00``; 0 for no time."""
    return int(np.datetime64(text.removesuffix("+00:00"), "ns").astype(np.int64)) if text else 0


def joined(first: dict[str, Any] | None, second: dict[str, Any]) -> dict[str, Any]:
    """Return the information about a bag with the files of two, both with the same topics; None is no file."""
    if first is None:
        return second
    parts = (first, second)
    start = min(part["starting_time"]["nanoseconds_since_epoch"] for part in parts)
    end = max(part["starting_time"]["nanoseconds_since_epoch"] + part["duration"]["nanoseconds"] for part in parts)
    counts = zip(first["topics_with_message_count"], second["topics_with_message_count"], strict=True)
    return {
        **first,
        "starting_time": {"nanoseconds_since_epoch": start},
        "duration": {"nanoseconds": end - start},
        "message_count": first["message_count"] + second["message_count"],
        "topics_with_message_count": [
            {**one, "message_count": one["message_count"] + other["message_count"]} for one, other in counts
        ],
        "relative_file_paths": first["relative_file_paths"] + second["relative_file_paths"],
        "files": first["files"] + second["files"],
    }
