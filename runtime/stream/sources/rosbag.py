"""The source of ROS 2 bags: the images of one topic, with the times of capture in their headers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import CCNetError, decode_errors_as
from ccnet.runtime.io.files import optional_module
from ccnet.runtime.io.frames import describe_colour, read_frame
from ccnet.runtime.io.mosaic import read_mosaic

from ..ros.bag_file import IMAGE, STAMP_END_NS, message_types
from ..ros.images import compressed_pixels, image_pixels
from .source import Pixels, SourceOptions, SourceSpec

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"

IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
"""Types of the messages that are frames."""

_SUFFIXES, _ROS1_SUFFIX = (".mcap", ".db3"), ".bag"
_METADATA, _METADATA_KEY = "metadata.yaml", b"rosbag2_bagfile_information"
_SQLITE = b"SQLite format 3\0"
_EXPECTED = "a whole ROS 2 bag: a folder with metadata.yaml, an .mcap or a .db3"


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag: a folder with the metadata.yaml of ROS 2, or a file by its suffix."""
    if not path.is_dir():
        return path.suffix.lower() in (*_SUFFIXES, _ROS1_SUFFIX)
    with suppress(OSError), (path / _METADATA).open("rb") as file:
        return _METADATA_KEY in file.read(4096)
    return False


def bag_source(text: str, options: SourceOptions) -> SourceSpec:
    """Return the source of a bag.

    Args:
        text: Path of the bag, maybe with ``rosbag:`` before it and ``?topic=NAME`` after it.
        options: Samples of the frames.

    Returns:
        The source, not opened yet.
    """
    path, _, topic = text.removeprefix("rosbag:").partition("?topic=")
    return SourceSpec(text, False, lambda: RosBag(Path(path), topic or None, options))


class RosBag:
    """The ``sensor_msgs`` images of one topic of a bag, in the order of their times in the bag.

    Attributes:
        expected: Number of the topic's messages, as the bag says.
        colour: Colour space of the last frame.
        frame_metadata: Time of capture and coordinate frame of the last frame.
    """

    def __init__(self, path: Path, topic: str | None, options: SourceOptions) -> None:
        """Open a bag.

        Args:
            path: Folder or file.
            topic: Topic to read; None for the only one with images.
            options: Samples of the frames.

        Raises:
            CCNetError: The path is no whole bag, the topic has no images, or several topics have, or rosbags is not
                installed.
        """
        self._path, self._options, self._types = path, options, message_types()
        self.colour = options.colour
        self.frame_metadata: Mapping[str, str] = {}
        self._reader = _open_reader(path)
        try:
            connections = _image_connections(path, self._reader.connections, topic)
        except CCNetError:
            self._reader.close()
            raise
        self._topic = connections[0].topic
        self._messages = self._reader.messages(connections)
        self.expected: int | None = sum(connection.msgcount for connection in connections)

    def read(self) -> tuple[str, Pixels] | None:
        """Return an empty name and the next image; CCNetError if its message is damaged, None at the end."""
        with decode_errors_as(self._path, _EXPECTED):  # after an error here the messages end
            entry = next(self._messages, None)
        if entry is None:
            return None
        connection, time_ns, data = entry
        with decode_errors_as(Path(self._topic), f"a whole {connection.msgtype}"):
            message = self._types.deserialize_cdr(data, connection.msgtype)
            if connection.msgtype == IMAGE:
                pixels = image_pixels(message, self._options.bayer)
            else:
                pixels = compressed_pixels(message, self._read_picture)
            self.frame_metadata = _frame_metadata(message.header, time_ns)
        return "", pixels

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def _read_picture(self, path: Path) -> Pixels:
        if self._options.bayer:
            return read_mosaic(path)
        pixels = read_frame(path, as_stored=self._options.as_stored)
        self.colour = "" if self._options.as_stored else describe_colour(path)
        return pixels


def bag_topics(path: Path) -> list[tuple[str, str, int]]:
    """Return name, type and number of messages of each topic of a bag; CCNetError as for a ``RosBag``."""
    reader = _open_reader(path)
    try:
        return [(topic, str(about.msgtype), about.msgcount) for topic, about in sorted(reader.topics.items())]
    finally:
        reader.close()


def _open_reader(path: Path) -> Any:
    if path.suffix.lower() == _ROS1_SUFFIX:
        raise CCNetError(f"{path}: is a bag of ROS 1, expected ROS 2; rosbags-convert --src {path} --dst FOLDER")
    reader = optional_module("rosbags.rosbag2", "ros").Reader
    with decode_errors_as(path, _EXPECTED):
        _check_databases(path)
        opened = reader(path)
        opened.open()
    return opened


def _check_databases(path: Path) -> None:
    """Raise CCNetError if an SQLite file of a bag is cut: SQLite would read zeros in place of the missing pages."""
    for file in path.glob("*.db3") if path.is_dir() else [path]:
        with file.open("rb") as opened:
            head = opened.read(100)
        if head.startswith(_SQLITE) and len(head) == 100:
            page, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
            expected = pages * (65536 if page == 1 else page)
            if (size := file.stat().st_size) < expected:
                raise CCNetError(f"{file}: is cut, has {size} of {expected} bytes, expected {_EXPECTED}")


def _image_connections(path: Path, connections: list[Any], topic: str | None) -> list[Any]:
    """Return the connections of the wanted topic, or of the only one with images."""
    images = [connection for connection in connections if connection.msgtype in IMAGE_TYPES]
    topics = sorted({connection.topic for connection in images})
    if not topics:
        raise CCNetError(
            f"{path}: has no topic with images, expected {IMAGE} or {COMPRESSED_IMAGE}; choose another bag"
        )
    chosen = topic or topics[0]
    if chosen not in topics or (topic is None and len(topics) > 1):
        found = f"has no images on {topic}" if topic else f"has {len(topics)} topics with images"
        raise CCNetError(f"{path}: {found}, choose one with rosbag:{path}?topic=NAME of {', '.join(topics)}")
    return [connection for connection in images if connection.topic == chosen]


def _frame_metadata(header: Any, time_ns: int) -> Mapping[str, str]:
    """Return the metadata of a message.

    Args:
        header: The message's header.
        time_ns: The message's time in the bag, ns since 1970, for a camera that set no stamp.

    Returns:
        Time of capture and, if the header names it, coordinate frame.

    Raises:
        CCNetError: The time is out of the range of stamps, 0 to 2**31 - 1 s.
    """
    stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec or time_ns
    if not 0 <= stamp_ns < STAMP_END_NS:
        raise CCNetError(
            f"the message's time is {stamp_ns} ns since 1970, expected 0 to {STAMP_END_NS - 1}; the message is damaged"
        )
    captured = {"captured": f"{np.datetime64(stamp_ns, 'ns')}+00:00"}
    return {**captured, "coordinate frame": header.frame_id} if header.frame_id else captured
