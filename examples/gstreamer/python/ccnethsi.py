"""A GStreamer element, ``ccnethsi``: video/x-raw RGB in, cubes or a preview out.

    GST_PLUGIN_PATH=examples/gstreamer gst-launch-1.0 videotestsrc num-buffers=9 ! videoconvert
      ! ccnethsi artifacts=build/ccnet ! filesink location=cubes.raw

Needs Debian's python3-gst-1.0, gstreamer1.0-plugins-base, for gst-launch gstreamer1.0-python3-plugin-loader, and ccnet
where that Python finds it. Cubes are application/x-ccnet-cube: a buffer is 31 × height × width little-endian float32,
with the frame's time. Downstream that takes only video/x-raw gets a preview: the bands at 640, 550 and 460 nm.
"""

from __future__ import annotations

from typing import Any

import gi
import numpy as np

gi.require_version("Gst", "1.0")
from gi.repository import GLib, GObject, Gst  # noqa: E402

from ccnet.contract import BANDS_NM, CCNetError  # noqa: E402
from ccnet.runtime import Reconstructor  # noqa: E402
from ccnet.runtime.stream.context_policy import ContextPolicy  # noqa: E402

Gst.init(None)

_SIZE = "width=[1,65535],height=[1,65535],framerate=[0/1,2147483647/1]"
_RGB = f"video/x-raw,format=RGB,{_SIZE}"
_CUBE = f"application/x-ccnet-cube,format=F32LE,bands={len(BANDS_NM)},{_SIZE}"
_PREVIEW = [BANDS_NM.index(nm) for nm in (640, 550, 460)]


def _template(name: str, direction: Any, caps: str) -> Any:
    return Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(caps))


class CCNetHSI(Gst.Element):
    """Synchronous: a queue before it, ``leaky`` or not, is the policy."""

    __gstmetadata__ = ("CCNet", "Filter/Converter/Video", "RGB to 31-band hyperspectral cubes", "CCNet")
    __gsttemplates__ = (
        _template("sink", Gst.PadDirection.SINK, _RGB),
        _template("src", Gst.PadDirection.SRC, f"{_CUBE};{_RGB}"),
    )

    artifacts = GObject.Property(type=str, default="build/ccnet", nick="folder made by 'ccnet export'")
    context = GObject.Property(type=str, default="every:1", nick="every:N, scene or smooth")
    space = GObject.Property(type=str, default="srgb", nick="srgb, or camera: linear light of the weights' camera")

    def __init__(self) -> None:
        super().__init__()
        self._sink, self._src = (
            Gst.Pad.new_from_template(self.get_pad_template(name), name) for name in ("sink", "src")
        )
        self._sink.set_chain_function_full(self._chain)
        self._sink.set_event_function_full(self._event)
        self.add_pad(self._sink)
        self.add_pad(self._src)
        self._reconstruct: Reconstructor | None = None
        self._shape, self._preview = (0, 0), False

    def do_change_state(self, transition: Any) -> Any:
        """Open the artifacts on the way up; close them on the way down."""
        if transition == Gst.StateChange.NULL_TO_READY:
            try:
                self._policy = ContextPolicy(self.context)
                self._reconstruct = Reconstructor.open(self.artifacts, input_space=self.space)
            except CCNetError as error:
                self._post(Gst.Message.new_error, error)
                return Gst.StateChangeReturn.FAILURE
        result = Gst.Element.do_change_state(self, transition)
        if transition == Gst.StateChange.READY_TO_NULL and self._reconstruct:
            self._reconstruct.close()
        return result

    def _event(self, pad: Any, parent: Any, event: Any) -> bool:
        if event.type != Gst.EventType.CAPS:
            return bool(self._sink.event_default(parent, event))
        given = event.parse_caps().get_structure(0)
        self._shape = given.get_value("height"), given.get_value("width")
        allowed = self._src.get_allowed_caps() or Gst.Caps.from_string(_CUBE)
        self._preview = not allowed.can_intersect(Gst.Caps.from_string(_CUBE))
        caps = Gst.Caps.from_string(_RGB if self._preview else _CUBE)
        for field in ("height", "width", "framerate"):
            caps.set_value(field, given.get_value(field))
        return bool(self._src.push_event(Gst.Event.new_caps(caps)))

    def _chain(self, pad: Any, parent: Any, buffer: Any) -> Any:
        try:
            data = self._cube(_unpacked(buffer, self._shape))
        except CCNetError as error:
            self._post(Gst.Message.new_warning, error)
            return Gst.FlowReturn.OK  # the frame is rejected, and the pipeline goes on
        made = Gst.Buffer.new_wrapped(data)
        made.pts, made.dts, made.duration, made.offset = buffer.pts, buffer.dts, buffer.duration, buffer.offset
        return self._src.push(made)

    def _cube(self, frame: np.ndarray) -> bytes:
        reconstruct = self._reconstruct
        if reconstruct is None:
            raise CCNetError("the element is not ready: set its state")
        pixels = reconstruct.camera_frame(frame)
        cube = reconstruct(pixels, self._policy(reconstruct, pixels))
        if not self._preview:
            return cube.tobytes()
        shown = 255 * np.clip(cube[_PREVIEW], 0, 1).transpose(1, 2, 0) ** (1 / 2.2)
        return np.pad(shown.astype(np.uint8).reshape(len(shown), -1), ((0, 0), (0, -3 * shown.shape[1] % 4))).tobytes()

    def _post(self, message: Any, error: CCNetError) -> None:
        told = GLib.Error.new_literal(Gst.stream_error_quark(), str(error), Gst.StreamError.FAILED)
        self.post_message(message(self, told, ""))


def _unpacked(buffer: Any, shape: tuple[int, int]) -> np.ndarray:
    """The frame (H, W, 3) of a buffer whose rows are of 4-byte multiples; CCNetError where it is too short."""
    height, width = shape
    stride = -(-3 * width // 4) * 4
    data = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
    if data.size < height * stride:
        raise CCNetError(f"the buffer has {data.size} bytes, expected {height * stride} of {width}×{height} px RGB")
    return data[: height * stride].reshape(height, stride)[:, : 3 * width].reshape(height, width, 3)


GObject.type_register(CCNetHSI)
__gstelementfactory__ = ("ccnethsi", Gst.Rank.NONE, CCNetHSI)
