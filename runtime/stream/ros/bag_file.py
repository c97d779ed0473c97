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

_METADATA_VERSION = 8
"""Version of metadata.yaml: the newest whose QoS is text, which the readers of all ROS 2 since Humble take."""


def message_types() -> Any:
    """Return rosbags' types and serializer of ROS 2's own messages; CCNetError if rosbags is not installed."""
    typesys = optional_module("rosbags.typesys", "ros")
    return typesys.get_typestore(typesys.Stores.LATEST)


class BagFile:
    """A bag of one file in a hidden folder, which is renamed when it is whole.

    Attributes:
        size: Bytes of the images in it.
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
        self._writer.open()
        self._images = {name: self._writer.add_connection(topic_name(name), IMAGE, typestore=types) for name in names}
        self._wavelengths = self._writer.add_connection(
            WAVELENGTHS_TOPIC, FLOATS, typestore=types, offered_qos_profiles=[_latched()]
        )

    def write(self, images: Mapping[str, ImageFields], stamp_ns: int, frame: str) -> None:
        """Append a cube's messages.

        Args:
            images: Name of each image → fields of its message.
            stamp_ns: Time of capture, ns since 1970; the messages' stamp.
            frame: Coordinate frame of the camera, the header's ``frame_id``.
        """
        if not self.size:
            self._writer.write(self._wavelengths, stamp_ns, self._serialized(FLOATS, **_wavelengths(self._types)))
        header = self._header(stamp_ns, frame)
        for name, fields in images.items():
            self._writer.write(self._images[name], stamp_ns, self._serialized(IMAGE, header=header, **vars(fields)))
            self.size += fields.data.size

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
        shutil.rmtree(self._folder)
        return information

    def discard(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self._writer.abort()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _header(self, stamp_ns: int, frame: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = self._types.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return self._types.types[HEADER](stamp=stamp, frame_id=frame)

    def _serialized(self, type: str, **fields: Any) -> memoryview:
        return self._types.serialize_cdr(self._types.types[type](**fields), type)


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
