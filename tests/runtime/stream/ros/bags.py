"""Bags of images as a robot records them, written by rosbags for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY)
START_NS = 1_700_000_000_000_000_007
IMAGE, COMPRESSED, TEXT = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"


def header(number: int, frame: str = "left_optical") -> Any:
    """Return the header of a frame, a second after the one before."""
    seconds, nanoseconds = divmod(START_NS + number * 10**9, 10**9)
    stamp = TYPES.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def image(number: int, pixels: np.ndarray, encoding: str = "rgb8", **changes: Any) -> Any:
    """Return an Image; ``changes`` replace fields."""
    height, width = pixels.shape[:2]
    fields = {
        "header": header(number),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": pixels.nbytes // height,
        "data": np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
    }
    return TYPES.types[IMAGE](**{**fields, **changes})


def compressed(number: int, data: bytes) -> Any:
    return TYPES.types[COMPRESSED](header=header(number), format="", data=np.frombuffer(data, np.uint8))


def write_bag(
    path: Path,
    topics: dict[str, tuple[str, Iterable[Any]]],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    """Write a bag.

    Args:
        path: The new folder.
        topics: Topic → type and messages; bytes are messages that are serialized already.
        storage: Format of the file.
        compression: What is compressed by Zstandard.

    Returns:
        The folder.
    """
    bag = Writer(path, version=9, storage_plugin=storage)
    bag.set_compression(compression, CompressionFormat.ZSTD)
    with bag as writer:
        for topic, (type, messages) in topics.items():
            connection = writer.add_connection(topic, type, typestore=TYPES)
            for number, message in enumerate(messages):
                data = message if isinstance(message, bytes) else TYPES.serialize_cdr(message, type)
                writer.write(connection, START_NS + 5 + number * 10**9, data)
    return path
