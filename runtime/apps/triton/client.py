"""A client on the server's own machine: frames and cubes pass through shared memory instead of a socket."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CUBE, CCNetError, Closeable
from ccnet.runtime.io.files import optional_module

from .model_config import FRAME

Array = npt.NDArray[np.float32]


def connect(url: str) -> Any:
    """Return tritonclient's gRPC client; a CCNetError says so if no server there has the model ``ccnet`` ready."""
    grpc = optional_module("tritonclient.grpc", "serve")
    client = grpc.InferenceServerClient(url)
    try:
        if client.is_model_ready("ccnet"):
            return client
        reason = "the model ccnet is not ready"
    except optional_module("tritonclient.utils", "serve").InferenceServerException as error:
        reason = " ".join(str(error.message()).split())[:200]
    client.close()
    raise CCNetError(f"{url}: {reason}, expected a server's gRPC address: ccnet serve run MODELS")


class SharedMemoryClient(Closeable):
    """Sends frames of one size; use it in ``with`` or call ``close``, from one thread."""

    def __init__(self, url: str, height: int, width: int) -> None:
        """Connect, and register one region of memory for a frame and one for its cube.

        Args:
            url: The server's gRPC address, such as ``localhost:8001``.
            height: Rows of every frame.
            width: Columns of every frame.
        """
        self._grpc = optional_module("tritonclient.grpc", "serve")
        self._memory = optional_module("tritonclient.utils.shared_memory", "serve")
        self._server_error = optional_module("tritonclient.utils", "serve").InferenceServerException
        self._client = connect(url)
        self._shape = (height, width, 3)
        self._cube_shape = (len(BANDS_NM), height, width)
        self._regions: dict[str, Any] = {}
        try:
            frame = self._grpc.InferInput(FRAME, self._shape, "UINT8")
            frame.set_shared_memory(*self._region("frame", 3 * height * width))
            cube = self._grpc.InferRequestedOutput(CUBE)
            cube.set_shared_memory(*self._region("cube", 4 * len(BANDS_NM) * height * width))
        except BaseException:
            self.close()
            raise
        self._input, self._output = frame, cube

    def __call__(self, frame: npt.NDArray[np.uint8], **options: Any) -> Array:
        """Return the cube of a frame.

        Args:
            frame: (H, W, 3) uint8.
            options: More arguments of tritonclient's ``infer``, such as ``sequence_id``.

        Returns:
            The cube (31, H, W) float32, a copy: it stays as it is after the next call and after ``close``.

        Raises:
            CCNetError: The frame has another size than the client was opened for.
        """
        if frame.shape != self._shape:
            raise CCNetError(f"frame has shape {frame.shape}, expected {self._shape}: open a client for each size")
        frame_region, cube_region = self._regions.values()
        self._memory.set_shared_memory_region(frame_region, [frame])
        self._client.infer("ccnet", [self._input], outputs=[self._output], **options)
        # numpy keeps no hold of the memory, so a view that is used after close would end the process
        view: Array = self._memory.get_contents_as_numpy(cube_region, np.float32, self._cube_shape)
        return view.copy()

    def close(self) -> None:
        """Free the memory, here and in the server."""
        while self._regions:
            name, region = self._regions.popitem()
            with suppress(self._server_error):  # the server is gone, or has a frame in work that nobody waits for
                self._client.unregister_system_shared_memory(name)
            self._memory.destroy_shared_memory_region(region)
        self._client.close()

    def _region(self, name: str, size: int) -> tuple[str, int]:
        """Create and register a region of memory; return its name and its size in bytes."""
        unique = f"ccnet-{name}-{secrets.token_hex(6)}"
        self._regions[unique] = self._memory.create_shared_memory_region(unique, f"/{unique}", size)
        self._client.register_system_shared_memory(unique, f"/{unique}", size)
        return unique, size
