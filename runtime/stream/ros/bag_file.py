"""One file of a bag: cubes as messages in an MCAP file, written by rosbags."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import BANDS_NM, hidden_path
from ccnet.runtime.io.files import optional_module

from .images import ImageFields
from .topics import WAVELENGTHS_TOPIC, topic_name

IMAGE, FLOATS, HEADER = "sensor_msgs/msg/Image", "std_msgs/msg/Float32MultiArray", "std_msgs/msg/Header"

STAMP_END_NS = 2**31 * 10**9
"""First time that is too late for a stamp, ns since 1970, in January 2038: ROS counts the seconds with 31 bits."""

_METADATA_VERSION = 8
"""Version of metadata.yaml: the newest whose QoS is text, which the readers of all ROS 2 since Humble take."""


def message_types() -> Any:
    """Return rosbags' types and serializer of ROS 2's own messages; CCNetError if rosbags is not installed."""
    typesys = optional_module("rosbags.typesys", "ros")
    return typesys.get_typestore(typesys.Stores.LATEST)


def image_messages(
    types: Any, images: Mapping[str, ImageFields], stamp_ns: int, frame: str
) -> Mapping[str, memoryview]:
    """Return the messages of a cube.

    Args:
        types: See ``message_types``.
        images: Name of each image → fields of its message.
        stamp_ns: Time of capture, ns since 1970, from 0 to ``STAMP_END_NS``.
        frame: Coordinate frame of the camera, the header's ``frame_id``.

    Returns:
        Name of each image → its message.
    """
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    stamp = types.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    header = types.types[HEADER](stamp=stamp, frame_id=frame)
    return {name: _serialized(types, IMAGE, header=header, **vars(fields)) for name, fields in images.items()}


class BagFile:
    """A bag of one file in a hidden folder, which is renamed when it is whole.

    Attributes:
        size: Bytes of the images' messages in it.
    """

    def __init__(self, folder: Path, types: Any, names: Sequence[str], facts: Mapping[str, str]) -> None:
        """Create the file.

        Args:
            folder: Folder to make the hidden folder in.
            types: See ``message_types``.
            names: Images of a cube, see ``parse_topics``.
            facts: Texts for the bag's ``custom_data``.
        """
        rosbag2 = optional_module("rosbags.rosbag2", "ros")
        self.size = 0
        self._types, self._folder = types, hidden_path(folder / "bag")
        self._writer = rosbag2.Writer(
            self._folder, version=_METADATA_VERSION, storage_plugin=rosbag2.StoragePlugin.MCAP
        )
        for key, value in facts.items():
            self._writer.set_custom_data(key, value)
        try:
            self._writer.open()
            self._images = {
                name: self._writer.add_connection(topic_name(name), IMAGE, typestore=types) for name in names
            }
            self._wavelengths = self._writer.add_connection(
                WAVELENGTHS_TOPIC, FLOATS, typestore=types, offered_qos_profiles=[_latched()]
            )
        except BaseException:
            self.discard()
            raise

    def write(self, messages: Mapping[str, memoryview], stamp_ns: int) -> None:
        """Append a cube's messages; after an exception the file is damaged and can only be discarded.

        Args:
            messages: Name of each image → its message, see ``image_messages``.
            stamp_ns: Time of capture, ns since 1970; the messages' time in the bag.
        """
        if not self.size:
            self._writer.write(
                self._wavelengths, stamp_ns, _serialized(self._types, FLOATS, **_wavelengths(self._types))
            )
        for name, message in messages.items():
            self._writer.write(self._images[name], stamp_ns, message)
            self.size += message.nbytes

    def publish(self, path: Path) -> dict[str, Any]:
        """Complete the file and rename it.

        Args:
            path: The file's name; the caller owns its folder.

        Returns:
            Information about a bag of this file, as metadata.yaml has it under ``rosbag2_bagfile_information``.
        """
        self._writer.close()
        (written,) = self._folder.glob("*.mcap")
        yaml = optional_module("ruamel.yaml", "ros").YAML(typ="safe")
        information = yaml.load(self._folder / "metadata.yaml")["rosbag2_bagfile_information"]
        information["relative_file_paths"] = [path.name]
        information["files"][0]["path"] = path.name
        written.rename(path)
        shutil.rmtree(self._folder, ignore_errors=True)  # the file is in its place: no error is left
        return information

    def discard(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self._writer.abort()
        shutil.rmtree(self._folder, ignore_errors=True)


def _serialized(types: Any, type: str, **fields: Any) -> memoryview:
    return types.serialize_cdr(types.types[type](**fields), type)


def _wavelengths(types: Any) -> dict[str, Any]:
    """Return the fields of the message with the wavelengths of the cube's channels, nm."""
    dimension = types.types["std_msgs/msg/MultiArrayDimension"](
        label="wavelength_nm", size=len(BANDS_NM), stride=len(BANDS_NM)
    )
    layout = types.types["std_msgs/msg/MultiArrayLayout"](dim=[dimension], data_offset=0)
    return {"layout": layout, "data": np.array(BANDS_NM, np.float32)}


def _latched() -> Any:
    """Return the quality of service of a topic whose last message every later subscriber gets."""
    interfaces = optional_module("rosbags.interfaces", "ros")
    never = interfaces.QosTime(sec=9223372036, nsec=854775807)
    return interfaces.Qos(
        history=interfaces.QosHistory.KEEP_LAST,
        depth=1,
        reliability=interfaces.QosReliability.RELIABLE,
        durability=interfaces.QosDurability.TRANSIENT_LOCAL,
        deadline=never,
        lifespan=never,
        liveliness=interfaces.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )
