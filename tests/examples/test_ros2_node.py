"""The ROS 2 node with a stand-in of rclpy, which is not on PyPI: parameters, topics, rejected frames; no middleware."""

from __future__ import annotations

import importlib.util
import sys
from array import array
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from ccnet.contract import BANDS_NM
from ccnet.runtime import Reconstructor
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.viz.render import render

NODE = Path(__file__).resolve().parents[2] / "examples/ros2/ccnet_node.py"
FRAME = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)


class Message(SimpleNamespace):
    """A message that takes the fields that it is called with."""


class FloatArray(SimpleNamespace):
    """A Float32MultiArray: the layout exists from the beginning."""

    def __init__(self, data: list[float]) -> None:
        super().__init__(data=data, layout=SimpleNamespace(dim=[]))


class Publisher:
    def __init__(self) -> None:
        self.published: list[Any] = []
        self.subscribers = 1

    def publish(self, message: Any) -> None:
        self.published.append(message)

    def get_subscription_count(self) -> int:
        return self.subscribers


class Node:
    """rclpy's Node, with the values of ``parameters`` in place of the command line's."""

    parameters: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str) -> None:
        self.publishers_by_topic: dict[str, Publisher] = {}
        self.warnings: list[str] = []
        self._defaults: dict[str, str] = {}

    def declare_parameter(self, name: str, default: str) -> None:
        self._defaults[name] = default

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self.parameters.get(name, self._defaults[name]))

    def create_publisher(self, type: Any, topic: str, qos: Any) -> Publisher:
        self.publishers_by_topic[topic] = Publisher()
        return self.publishers_by_topic[topic]

    def create_subscription(self, type: Any, topic: str, callback: Any, qos: Any) -> None:
        self.subscription = topic, callback, qos

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.warnings.append)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the node's file with stand-ins for the modules of ROS."""
    choices = {"DurabilityPolicy": "TRANSIENT_LOCAL", "HistoryPolicy": "KEEP_LAST", "ReliabilityPolicy": "BEST_EFFORT"}
    modules = {
        "rclpy": {},
        "rclpy.executors": {"ExternalShutdownException": Exception},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {
            "QoSProfile": Message,
            **{name: SimpleNamespace(**{value: value}) for name, value in choices.items()},
        },
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Message},
        "std_msgs": {},
        "std_msgs.msg": {"Float32MultiArray": FloatArray, "MultiArrayDimension": Message},
    }
    for name, attributes in modules.items():
        stand_in = ModuleType(name)
        vars(stand_in).update(attributes)
        monkeypatch.setitem(sys.modules, name, stand_in)
    spec = importlib.util.spec_from_file_location("ccnet_node", NODE)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def image(pixels: np.ndarray, encoding: str) -> Message:
    height, width = pixels.shape[:2]
    data = array("B", pixels.tobytes())
    fields = {"height": height, "width": width, "is_bigendian": 0, "step": pixels.nbytes // height, "data": data}
    return Message(header=object(), encoding=encoding, **fields)


def values(message: Message, dtype: Any) -> np.ndarray:
    assert isinstance(message.data, array) and message.step * message.height == len(message.data)
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width, -1)


def start(module: Any, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> Any:
    monkeypatch.setattr(Node, "parameters", {name: str(value) for name, value in parameters.items()})
    return module.CCNetNode()


def test_cube_and_preview_have_the_header_of_the_image(
    module: Any, artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start(module, monkeypatch, artifacts=artifacts[1])
    topic, on_image, qos = node.subscription
    assert (topic, qos.depth, qos.history, qos.reliability) == ("image_raw", 1, "KEEP_LAST", "BEST_EFFORT")
    message = image(FRAME[..., ::-1], "bgr8")
    on_image(message)
    with Reconstructor.open(artifacts[1], input_space="srgb") as reconstruct:
        cube = reconstruct(FRAME)
    (published,), (preview,) = (node.publishers_by_topic[f"/ccnet/{name}"].published for name in ("cube", "preview"))
    np.testing.assert_array_equal(values(published, np.float32).transpose(2, 0, 1), cube)
    np.testing.assert_array_equal(values(preview, np.uint8), render(cube))
    assert published.header is preview.header is message.header
    assert (published.encoding, preview.encoding) == ("32FC31", "rgb8")
    (wavelengths,) = node.publishers_by_topic["/ccnet/wavelengths"].published
    assert wavelengths.data == list(BANDS_NM) and wavelengths.layout.dim[0].size == 31
    node.close()


def test_only_topics_with_subscribers_are_published(
    module: Any, artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start(module, monkeypatch, artifacts=artifacts[1], topics="cube,550")
    cube, band = node.publishers_by_topic["/ccnet/cube"], node.publishers_by_topic["/ccnet/band_550"]
    cube.subscribers = 0
    node.on_image(image(FRAME, "rgb8"))
    assert (len(cube.published), len(band.published)) == (0, 1) and band.published[0].encoding == "32FC1"
    band.subscribers = 0
    node.on_image(image(FRAME, "rgb8"))
    assert len(band.published) == 1
    node.close()


def test_sensor_frames_go_through_radiometry_and_rejected_frames_are_logged(
    module: Any, artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text('{"bits": 8, "bayer": "GRBG"}')
    node = start(module, monkeypatch, artifacts=artifacts[1], radiometry=camera, topics="550")
    node.on_image(image(FRAME[..., 0], "bayer_grbg8"))
    with Reconstructor.open(artifacts[1], input_space="camera") as reconstruct:
        band = reconstruct(Radiometry.read(camera)(FRAME[..., 0]))[BANDS_NM.index(550)]
    found = node.publishers_by_topic["/ccnet/band_550"].published
    np.testing.assert_array_equal(values(found[0], np.float32)[..., 0], band)
    node.on_image(image(FRAME, "rgb8"))
    assert len(found) == 1 and node.warnings == [
        "frame rejected: the encoding is rgb8, expected bayer_* or mono, since --radiometry has a bayer"
    ]
    node.close()
