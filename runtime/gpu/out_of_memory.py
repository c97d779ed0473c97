"""Out-of-memory errors, unified across devices: a smaller tile may cure them."""

from __future__ import annotations

from ccnet.contract import CCNetError

_WORDS = ("out of memory", "allocate memory", "bad_alloc", "out_of_memory", "outofmemory")


class OutOfMemoryError(CCNetError):
    """The machine or its GPU has too little memory for a tile."""


def is_out_of_memory(error: BaseException | str) -> bool:
    """Return whether an error says that memory ran out.

    Torch, ONNX Runtime and TensorRT say so only in their messages. The words are compared, so that none of the
    libraries has to be imported.
    """
    message = str(error).lower()
    return isinstance(error, MemoryError | OutOfMemoryError) or any(word in message for word in _WORDS)
