"""A node of ROS 2: images in, cubes, colours and bands out. Tested with a stand-in of rclpy, not run with ROS 2.

    python3 examples/ros2/ccnet_node.py --ros-args -p artifacts:=build/ccnet -r image_raw:=/camera/image_raw

Needs rclpy, sensor_msgs and std_msgs of ROS 2, and ccnet for the same Python. Parameters, read at the start:
``artifacts``, ``input_space`` (srgb or camera), ``context`` (every:N, scene or smooth), ``radiometry`` (a file or a
known camera, which bayer_* images need) and ``topics`` (cube, preview and wavelengths in nm, with commas). The node has
the topics of the bags that "ccnet stream" writes, and computes only those that somebody subscribes to.
"""

from __future__ import annotations

from array import array
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Float32MultiArray, MultiArrayDimension

from ccnet.contract import BANDS_NM
from ccnet.runtime import CCNetError, Reconstructor
from ccnet.runtime.io.cameras.preparation import FramePreparation, prepared_space
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.ros.images import ImageFields, image_pixels
from ccnet.runtime.stream.ros.topics import WAVELENGTHS_TOPIC, TopicImages, parse_topics, topic_name

# Of the frames that come while one is in work, the newest waits and the others are dropped, as sensors are read
NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

PARAMETERS = {
    "artifacts": "build/ccnet",
    "input_space": "",
    "context": "every:1",
    "radiometry": "",
    "topics": "cube,preview",
}


class CCNetNode(Node):
    """image_raw → the topics of its cubes, with the headers of the images."""

    def __init__(self) -> None:
        super().__init__("ccnet")
        for name, default in PARAMETERS.items():
            self.declare_parameter(name, default)
        texts = {name: self.get_parameter(name).value for name in PARAMETERS}
        self._radiometry = Radiometry.find(texts["radiometry"]) if texts["radiometry"] else None
        space = prepared_space(self._radiometry, texts["input_space"] or None)
        self._policy, names = ContextPolicy(texts["context"]), parse_topics(texts["topics"])
        self._reconstruct = Reconstructor.open(texts["artifacts"], input_space=space)
        self._prepare = FramePreparation(self._reconstruct.manifest, space, self._radiometry, keep_gains=True)
        self._images = {name: self.create_publisher(Image, topic_name(name), 1) for name in names}
        self._wavelengths = self.create_publisher(Float32MultiArray, WAVELENGTHS_TOPIC, LATCHED)
        self._wavelengths.publish(wavelengths())
        self.create_subscription(Image, "image_raw", self.on_image, NEWEST)

    def on_image(self, message: Any) -> None:
        """Publish the images of a frame's cube that have subscribers; a frame that is rejected is logged."""
        wanted = [name for name, publisher in self._images.items() if publisher.get_subscription_count()]
        if not wanted:
            return
        try:
            images = self._reconstructed(message, wanted)
        except CCNetError as error:
            self.get_logger().warning(f"frame rejected: {error}")
            return
        for name, fields in images.items():
            self._images[name].publish(image_message(message.header, fields))

    def close(self) -> None:
        """Free the graphs or engines."""
        self._reconstruct.close()

    def _reconstructed(self, message: Any, names: list[str]) -> dict[str, ImageFields]:
        frame = self._prepare(image_pixels(message, self._radiometry.bayer if self._radiometry else None))
        images = TopicImages(names, *frame.shape[:2])
        for top, left, part in self._reconstruct.parts(frame, self._policy(self._reconstruct, frame)):
            images.write(top, part, left)
        return images.fields()


def image_message(header: Any, fields: ImageFields) -> Any:
    """Return the message of an image."""
    data = array("B")  # rclpy checks any other sequence byte by byte
    data.frombytes(fields.data)
    return Image(header=header, **{**vars(fields), "data": data})


def wavelengths() -> Any:
    """Return the message with the wavelengths of the cube's channels, nm."""
    message = Float32MultiArray(data=[float(nm) for nm in BANDS_NM])
    message.layout.dim.append(MultiArrayDimension(label="wavelength_nm", size=len(BANDS_NM), stride=len(BANDS_NM)))
    return message


def main() -> None:
    """Run the node until it is interrupted."""
    rclpy.init()
    node = CCNetNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
