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
from .bag_file import STAMP_END_NS, BagFile, image_messages, message_types
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
            CCNetError: The path exists or has a ``?``, a topic is unknown, or rosbags is not installed.
        """
        path, _, topics = text.partition("?topics=")
        if "?" in path:
            raise CCNetError(f"rosbag:{text}: has an unknown option after '?', expected rosbag:PATH?topics=LIST")
        self._topics = parse_topics(topics or DEFAULT_TOPICS)
        self._types = message_types()
        self.name, self._path, self._file_bytes = f"rosbag:{path}", Path(path), file_bytes
        self._file: BagFile | None = None
        self._information: dict[str, Any] | None = None
        self._listed = True  # metadata.yaml lists all files
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
        """Yield the writer of a cube's images; CCNetError if they or their time do not fit a message, or the disk."""
        stamp_ns = capture_ns(metadata.get("captured", ""))
        images = TopicImages(self._topics, height, width)
        yield images
        fields = images.fields()
        with write_errors(self.name):
            self._check_space(sum(image.data.size for image in fields.values()))
        self._write(fields, stamp_ns, as_texts(metadata))

    def close(self) -> None:
        """Complete the bag; CCNetError if cubes are lost, with their number, or if metadata.yaml lacks a file."""
        failure: CCNetError | None = None
        try:
            self._publish()
        except CCNetError as error:
            failure = error
        if not self._files:
            with suppress(OSError):
                self._path.rmdir()
        problems = []
        if self._lost:
            problems.append(
                f"{self._lost} delivered cubes are lost, as their file could not be written; make room and stream "
                "these frames again into another bag"
            )
        if not self._listed:
            problems.append(
                f"metadata.yaml does not list all files ({failure}); each .mcap is whole, read it by itself"
            )
        if problems:
            raise CCNetError(f"{self.name}: {'; '.join(problems)}") from failure
        if failure:
            raise failure

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._path).free
        if free < needed + _SPARE_BYTES:
            raise CCNetError(f"{self.name}: {free / 1e6:.0f} MB are free, a cube needs {needed / 1e6:.0f}; make room")

    def _write(self, fields: Mapping[str, ImageFields], stamp_ns: int, metadata: Mapping[str, str]) -> None:
        """Append a cube's messages, and complete the file when it is large enough."""
        with write_errors(self.name):  # before the file is touched: an error here costs no other cube
            frame = metadata.get("coordinate frame", DEFAULT_FRAME)
            messages = image_messages(self._types, fields, stamp_ns, frame)
        with self._discard_on_error():
            if self._file is None:
                facts = {key: value for key, value in metadata.items() if key not in _OF_A_FRAME}
                self._file = BagFile(self._path, self._types, self._topics, facts)
            self._file.write(messages, stamp_ns)
        if self._file.size >= self._file_bytes:
            self._complete_file()
        else:
            self._pending += 1
        with suppress(CCNetError):  # the cube is in its file; the next cube or close lists the file
            self._list_files()

    def _publish(self) -> None:
        """Complete the file in work, if there is one, and list all files in metadata.yaml."""
        try:
            self._complete_file()
        finally:
            self._list_files()

    def _complete_file(self) -> None:
        """Complete the file in work, if there is one."""
        if (file := self._file) is None:
            return
        with self._discard_on_error():
            information = file.publish(self._path / f"{self._path.name}_{self._files}.mcap")
        self._file, self._files, self._pending = None, self._files + 1, 0
        self._information, self._listed = joined(self._information, information), False

    def _list_files(self) -> None:
        """Write metadata.yaml if it lacks a file."""
        if self._listed:
            return
        text = io.StringIO()
        yaml = optional_module("ruamel.yaml", "ros").YAML(typ="safe")
        yaml.default_flow_style = False
        yaml.dump({"rosbag2_bagfile_information": self._information}, text)
        write_atomic(self._path / "metadata.yaml", text.getvalue().encode())
        self._listed = True

    @contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        """Delete the file in work after any error, as it is damaged, and count the cubes that are lost with it."""
        try:
            with write_errors(self.name):
                yield
        except Exception:  # MemoryError and errors of rosbags too
            if (file := self._file) is not None:
                self._lost += self._pending
                self._file, self._pending = None, 0
                file.discard()
            raise


def capture_ns(text: str) -> int:
    """Return the stamp of a time.

    Args:
        text: Time in UTC such as ``2026-11-30T12:00:00.123456789+00:00``; empty for no time.

    Returns:
        Nanoseconds since 1970; 0 for no time.

    Raises:
        CCNetError: The text is no time, or the time is out of the range of ROS's stamps.
    """
    if not text:
        return 0
    with suppress(ValueError):
        time = np.datetime64(text.removesuffix("+00:00"))
        # In seconds first: nanoseconds of far years overflow without a word
        if 0 <= int(time.astype("datetime64[s]").astype(np.int64)) < STAMP_END_NS // 10**9:
            return int(time.astype("datetime64[ns]").astype(np.int64))
    raise CCNetError(f"the frame's time is {text!r}, expected 1970 to January 2038, as ROS's stamps end there")


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
