"""Lack of memory, on whichever device, as one error: what a smaller window may cure."""

from __future__ import annotations

from ccnet.contract import CCNetError


class OutOfMemoryError(CCNetError):
    """The machine or its GPU has too little memory for a window."""


def is_out_of_memory(error: BaseException | str) -> bool:
    """Whether an error is of that kind.

    Torch, ONNX Runtime and TensorRT tell of it in words alone, so that none has to be imported to know their errors.
    """
    told = str(error).lower()
    words = ("out of memory", "allocate memory", "bad_alloc", "out_of_memory")
    return isinstance(error, MemoryError | OutOfMemoryError) or any(word in told for word in words)
