"""The source of GigE Vision and USB3 Vision cameras through Aravis, which needs no software of the camera's maker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from ccnet.contract import CCNetError, prefix_errors

from .camera_address import CameraAddress
from .pixel_formats import PixelFormat
from .source import FRAME_TIMEOUT_S, FrameTimeoutError, Pixels, SourceDisconnectedError, SourceOptions, SourceSpec

BUFFERS = 4
"""Number of frames that the camera's stream can hold while one is copied."""


def aravis_source(text: str, options: SourceOptions) -> SourceSpec:
    """Return the source ``aravis:NAME_OR_ADDRESS``; the camera is looked for when it is opened."""
    address = CameraAddress.parse(text)
    return SourceSpec(text, True, lambda: AravisCamera(address, options))


class AravisCamera:
    """A camera that Aravis opens, by its name or address."""

    def __init__(self, address: CameraAddress, options: SourceOptions) -> None:
        """Open the camera and start its acquisition.

        Args:
            address: The camera's name, serial number or IP address; empty for the first camera that answers.
            options: The samples that are expected.

        Raises:
            CCNetError: Aravis or the camera is missing, the camera is in use, a feature does not exist or the pixel
                format is not what the options describe.
        """
        self._aravis, self._error = _import_aravis()
        self._name, self.colour = address.text, options.colour
        self.expected: int | None = None
        self._lost = threading.Event()
        self._camera = self._find(address.target)
        self._stream: Any = None
        try:
            with self._name_errors("cannot be opened"):
                self._camera.get_device().connect("control-lost", lambda _: self._lost.set())
                self._format = self._configure(address.features, options)
                self._stream = self._camera.create_stream(None, None)
                for _ in range(BUFFERS):
                    self._stream.push_buffer(self._aravis.Buffer.new_allocate(self._camera.get_payload()))
                self._camera.start_acquisition()
        except BaseException:
            self.close()
            raise

    def read(self) -> tuple[str, Pixels] | None:
        """Return an empty name and the next frame (H, W, 3) or (H, W).

        Returns:
            Name and frame.

        Raises:
            FrameTimeoutError: No frame came; the camera is still there.
            SourceDisconnectedError: The camera is gone.
            CCNetError: Parts of the frame were lost on the way.
        """
        buffer = self._stream.timeout_pop_buffer(int(FRAME_TIMEOUT_S * 1e6))
        if buffer is None:
            if self._lost.is_set():
                raise SourceDisconnectedError(f"{self._name}: the camera is gone")
            raise FrameTimeoutError(f"{self._name}: no frame in {FRAME_TIMEOUT_S} s")
        try:
            status = buffer.get_status()
            if status != self._aravis.BufferStatus.SUCCESS:
                reason = status.value_nick.replace("-", " ")
                raise CCNetError(f"{self._name}: an incomplete buffer came ({reason})")
            region = buffer.get_image_region()
            # New in Aravis 0.8.22
            padding = buffer.get_image_padding()[0] if hasattr(buffer, "get_image_padding") else 0
            return "", self._format.decode(buffer.get_data(), region.height, region.width, padding)
        finally:
            self._stream.push_buffer(buffer)

    def close(self) -> None:
        """Stop the acquisition and free the camera, also one that is gone."""
        with suppress(self._error):
            if self._camera and not self._lost.is_set():  # each command to a camera that is gone takes seconds
                self._camera.stop_acquisition()
        self._stream = self._camera = None

    def _find(self, name: str) -> Any:
        """Open the camera that answers to a name or address."""
        if not _is_address(name):
            self._aravis.update_device_list()  # or Aravis may listen on another network than the camera's
        try:
            return self._aravis.Camera.new(name or None)
        except self._error as error:
            if _is_address(name):
                self._aravis.update_device_list()
            count = self._aravis.get_n_devices()
            cameras = ", ".join(self._aravis.get_device_id(index) for index in range(count)) or "none"
            raise CCNetError(
                f"{self._name}: no camera can be opened ({error.message}); looked for"
                f" {name or 'any camera'} on networks (GigE Vision) and USB3, found {cameras}"
            ) from error

    def _configure(self, features: dict[str, str], options: SourceOptions) -> PixelFormat:
        """Set features of the camera and return its pixel format."""
        for name, value in features.items():
            # Not through a variable: an error's traceback would hold the device, and with it control of the camera
            self._camera.get_device().set_features_from_string(f"{name}={value}")
        with prefix_errors(self._name):
            offered = self._camera.dup_available_pixel_formats_as_strings()
            return PixelFormat.find(self._camera.get_pixel_format_as_string(), options, offered)

    @contextmanager
    def _name_errors(self, what: str) -> Iterator[None]:
        """Turn errors of Aravis into one line that names the camera."""
        try:
            yield
        except self._error as error:
            raise CCNetError(f"{self._name}: {what} ({error.message})") from error


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _import_aravis() -> tuple[Any, Any]:
    """Return Aravis' module and its kind of errors, or raise a CCNetError that says how to install it."""
    try:
        import_module("gi").require_version("Aravis", "0.8")
        return import_module("gi.repository.Aravis"), import_module("gi.repository.GLib").Error
    except (ImportError, ValueError) as error:
        raise CCNetError(
            "Aravis is not installed for this Python: on Debian or Ubuntu, 'apt install gir1.2-aravis-0.8 python3-gi',"
            " then link /usr/lib/python3/dist-packages/gi into this environment's site-packages (of the same Python)"
        ) from error
