"""The source of cameras with a GenTL producer (a ``.cti`` file of the camera's maker), through harvesters."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError, prefix_errors
from ccnet.runtime.io.files import optional_module

from .camera_address import CameraAddress
from .pixel_formats import PixelFormat
from .source import FRAME_TIMEOUT_S, FrameTimeoutError, Pixels, SourceDisconnectedError, SourceOptions, SourceSpec

PRODUCERS_VARIABLE = "GENICAM_GENTL64_PATH"
"""Environment variable with the folders of all installed producers, by the GenTL standard."""

_POLL_MS, _PAUSE_S = 1, 0.002  # genicam holds Python's lock while it waits, so that it waits briefly and leaves pauses

_logger = logging.getLogger(f"{__name__}.harvesters")
_logger.setLevel(logging.CRITICAL + 1)  # harvesters logs each error that it raises


def genicam_source(text: str, options: SourceOptions) -> SourceSpec:
    """Return the source ``genicam:PRODUCER.cti?device=ID``; the camera is looked for when it is opened."""
    address = CameraAddress.parse(text)
    return SourceSpec(text, True, lambda: GenicamCamera(address, options))


class GenicamCamera:
    """A camera whose frames a GenTL producer gives, oldest first."""

    def __init__(self, address: CameraAddress, options: SourceOptions) -> None:
        """Open the camera and start its acquisition.

        Args:
            address: The producer's file, a folder of producers, or nothing for those of GENICAM_GENTL64_PATH; its
                ``device`` is a number in the list of cameras, an id, a serial number or a name.
            options: The samples that are expected.

        Raises:
            CCNetError: The producer or the camera is missing or in use, a feature does not exist or the pixel format
                is not what the options describe.
        """
        self._core = optional_module("harvesters.core", "genicam")
        self._gentl = optional_module("genicam.gentl", "genicam")
        self._errors = (self._gentl.GenericException, optional_module("genicam.genapi", "genicam").GenericException)
        self._name, self.colour = address.text, options.colour
        self.expected: int | None = None
        self._incomplete = threading.Event()
        features = dict(address.features)
        device = features.pop("device", "0")
        self._camera: Any = None
        self._harvester = self._core.Harvester(
            config=self._core.ParameterSet({self._core.ParameterKey.LOGGER: _logger})
        )
        try:
            with self._name_errors("cannot be opened", CCNetError):
                self._camera = self._find(find_producers(address), device)
                self._format = self._configure(features, options)
                self._camera.add_callback(self._camera.Events.INCOMPLETE_BUFFER, self._incomplete_callback())
                self._camera.start()
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
            CCNetError: The buffer is incomplete or holds no image.
        """
        until = time.monotonic() + FRAME_TIMEOUT_S
        with self._name_errors("the camera is gone", SourceDisconnectedError):
            while (buffer := self._camera.try_fetch(timeout=_POLL_MS / 1000, is_raw=True)) is None:
                if self._incomplete.is_set():
                    self._incomplete.clear()
                    raise CCNetError(f"{self._name}: an incomplete buffer came, parts of the frame were lost")
                if time.monotonic() > until:
                    self._check_presence()
                    raise FrameTimeoutError(f"{self._name}: no frame in {FRAME_TIMEOUT_S} s")
                time.sleep(_PAUSE_S)
            try:
                return "", self._decode(buffer)
            finally:
                buffer.parent.queue_buffer(buffer)  # back to the producer

    def close(self) -> None:
        """Stop the acquisition and free the camera and the producer, also of a camera that is gone."""
        for release in (self._camera and self._camera.destroy, self._harvester.reset):
            with suppress(*self._errors):
                if release:
                    release()

    def _find(self, producers: list[Path], device: str) -> Any:
        """Open the camera that a text names."""
        failures = []
        for path in producers:
            try:
                self._harvester.add_file(str(path), check_existence=True, check_validity=True)
            except OSError as error:
                failures.append(f"{path} is no GenTL producer ({error})")
        if not self._harvester.files:  # with others beside it, a broken installation is of no importance
            raise CCNetError(f"{self._name}: {'; '.join(failures)}")
        self._harvester.update()
        found = self._harvester.device_info_list
        names = [self._device_names(info) for info in found]
        matches = [index for index, known in enumerate(names) if device in known]
        index = int(device) if device.isdecimal() and int(device) < len(found) else next(iter(matches), None)
        if index is None:
            cameras = ", ".join(known[0] for known in names) or "none"
            looked = ", ".join(map(str, producers))
            raise CCNetError(
                f"{self._name}: no camera {device!r}, found {cameras} through {looked}: is it connected and not in use?"
            )
        with _keep_interrupt_handler():
            return self._harvester.create(index)

    def _device_names(self, info: Any) -> list[str]:
        """Return the id of a camera and, where it has them, serial number and user-defined name."""
        names = [str(info.id_)]
        for attribute in ("serial_number", "user_defined_name"):
            with suppress(*self._errors):
                names.append(str(getattr(info, attribute)))
        return names

    def _configure(self, features: dict[str, str], options: SourceOptions) -> PixelFormat:
        """Set features of the camera and return its pixel format."""
        nodes = self._camera.remote_device.node_map
        for name, value in features.items():
            if not nodes.has_node(name) or not hasattr(nodes.get_node(name), "from_string"):
                raise CCNetError(f"{self._name}: the camera has no feature {name!r} that takes a value")
            nodes.get_node(name).from_string(value)
        if len(self._camera.data_streams) != 1:
            raise CCNetError(f"{self._name}: the camera has {len(self._camera.data_streams)} streams, expected 1")
        with prefix_errors(self._name):
            return PixelFormat.find(nodes.PixelFormat.value, options, nodes.PixelFormat.symbolics)

    def _incomplete_callback(self) -> Any:
        """Return what harvesters calls when it discards an incomplete buffer, an object of a class of its own."""
        emit = {"emit": lambda _, context=None: self._incomplete.set()}
        return type("OnIncomplete", (self._core.Callback,), emit)()

    def _decode(self, buffer: Any) -> Pixels:
        payload, types = buffer.payload_type, self._gentl.PAYLOADTYPE_INFO_IDS
        if payload not in (types.PAYLOAD_TYPE_IMAGE, types.PAYLOAD_TYPE_CHUNK_DATA):
            raise CCNetError(f"{self._name}: a buffer has payload type {payload}, expected an image")
        nodes = self._camera.remote_device.node_map
        height, width = self._of(buffer, "height", nodes.Height), self._of(buffer, "width", nodes.Width)
        return self._format.decode(buffer.raw_buffer, height, width, self._of(buffer, "padding_x", None))

    def _of(self, buffer: Any, attribute: str, node: Any) -> int:
        """Return a buffer's attribute, or the camera's feature where the producer does not know it."""
        with suppress(self._gentl.GenericException):
            return int(getattr(buffer, attribute))
        return int(node.value) if node else 0

    def _check_presence(self) -> None:
        """Read a register of the camera, which fails if it is gone."""
        width = self._camera.remote_device.node_map.Width
        width.node.invalidate_node()
        _ = width.value

    @contextmanager
    def _name_errors(self, what: str, kind: type[CCNetError]) -> Iterator[None]:
        """Turn errors of GenTL and GenApi into one line that names the camera."""
        try:
            yield
        except self._errors as error:
            raise kind(f"{self._name}: {what} ({' '.join(str(error).split())})") from error


def find_producers(address: CameraAddress) -> list[Path]:
    """Return the files of GenTL producers that an address stands for.

    Args:
        address: Its target is a file, a folder, or empty for the folders of GENICAM_GENTL64_PATH.

    Returns:
        At least one file, sorted in each folder.

    Raises:
        CCNetError: There is none.
    """
    text = address.target or os.environ.get(PRODUCERS_VARIABLE, "")
    places = [Path(place) for place in ([text] if address.target else text.split(os.pathsep)) if place]
    if not places:
        raise CCNetError(
            f"{address.text}: names no GenTL producer and {PRODUCERS_VARIABLE} is not set, expected"
            " genicam:PRODUCER.cti, a file that comes with the camera's software"
        )
    found = [file for place in places for file in ([place] if place.is_file() else sorted(place.glob("*.cti")))]
    if not found:
        looked = ", ".join(map(str, places))
        raise CCNetError(f"{address.text}: no GenTL producer, looked for {looked} or .cti files in it")
    return found


@contextmanager
def _keep_interrupt_handler() -> Iterator[None]:
    """Restore the handler of Ctrl-C, which harvesters replaces where it is opened in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
