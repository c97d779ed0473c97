"""The class that the server's python backend looks for in ``model.py``: requests of the server ↔ ``FrameService``.

Tensors pass by DLPack. The server's own code for arrays knows the structures of numpy 1: with numpy 2 it reads wrong
pixels and sends no byte, without an error.
"""

from __future__ import annotations

import importlib
import json
from ctypes import PYFUNCTYPE, c_char_p, c_int, py_object, pythonapi
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import CUBE, CCNetError
from ccnet.runtime.gpu.out_of_memory import is_out_of_memory

from .model_config import DENOMINATOR, FRAME, IMAGE, PROJECTION
from .repository import ARTIFACTS
from .service import Array, FrameService, Request, ServiceSettings

_START, _END = 1, 2  # TRITONSERVER_REQUEST_FLAG_SEQUENCE_*

_rename_capsule = PYFUNCTYPE(c_int, py_object, c_char_p)(("PyCapsule_SetName", pythonapi))


class TritonPythonModel:
    """One copy of the model ``ccnet``, in a process of its own that the server starts."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the artifacts that lie beside ``model.py``. An error becomes the reason why the model is not ready.

        Args:
            args: The server's description of this copy.
        """
        self._server: Any = importlib.import_module("triton_python_backend_utils")  # only the server has it
        parameters = json.loads(args["model_config"])["parameters"]
        settings = ServiceSettings.parse({name: value["string_value"] for name, value in parameters.items()})
        folder = Path(args["model_repository"], args["model_version"], ARTIFACTS)
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else 0
        self._service = FrameService(folder, settings, device)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests in their order: each with a cube, or with the line that says what was wrong with it."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Free the backends."""
        self._service.close()

    def _answer(self, request: Any) -> Any:
        server = self._server
        if request.is_cancelled():  # nobody waits for it any more
            return server.InferenceResponse(error=server.TritonError("cancelled", server.TritonError.CANCELLED))
        try:
            return server.InferenceResponse([self._tensor(self._service(self._request(request)))])
        except (CCNetError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            text = str(error) if isinstance(error, CCNetError) else "out of memory: send a smaller frame"
            return server.InferenceResponse(error=server.TritonError(text, server.TritonError.INVALID_ARG))

    def _request(self, request: Any) -> Request:
        arrays: dict[str, Any] = {}
        for name in (FRAME, IMAGE, PROJECTION, DENOMINATOR):
            tensor = self._server.get_input_tensor_by_name(request, name)
            arrays[name] = None if tensor is None else np.from_dlpack(tensor)
        flags = request.flags()
        return Request(**arrays, sequence=request.correlation_id(), start=bool(flags & _START), end=bool(flags & _END))

    def _tensor(self, values: Array) -> Any:
        """Return the server's tensor of an array, without a copy.

        The server renames the capsule to a name that numpy's destructor does not know, and would print an error for.
        """
        capsule = values.__dlpack__()
        tensor = self._server.Tensor.from_dlpack(CUBE, capsule)
        _rename_capsule(capsule, b"used_dltensor")
        return tensor
