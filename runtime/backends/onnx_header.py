"""The outermost fields of an ONNX file, read without loading the network: they tell a whole file from a damaged one.

An ONNX file is a message of protobuf. Its outermost fields follow each other, each with a number and a length, so that
megabytes of weights are skipped in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from ccnet.contract import CCNetError

_GRAPH, _METADATA = 7, 14
"""Numbers of two fields of ONNX's ModelProto."""

_KEY, _VALUE = 1, 2
"""Numbers of the fields of its StringStringEntryProto."""

_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}
"""Protobuf's types of fields: numbers of any length, bytes that follow their length, numbers of fixed length."""


def read_metadata(label: str, data: bytes) -> dict[str, str]:
    """Return the metadata entries of an ONNX file.

    Args:
        label: Name of the file, for messages.
        data: Content of the file.

    Returns:
        Key → value.

    Raises:
        CCNetError: The file is damaged or has no graph.
    """
    metadata: dict[str, str] = {}
    has_graph = False
    try:
        for number, content in _fields(memoryview(data)):
            has_graph |= number == _GRAPH
            if number == _METADATA:
                entry = dict(_fields(content))
                metadata[str(entry[_KEY], "utf-8")] = str(entry.get(_VALUE, b""), "utf-8")
    except (IndexError, KeyError, ValueError) as error:
        raise CCNetError(f"{label}: cannot be loaded as ONNX (it is damaged): export it again") from error
    if not has_graph:
        raise CCNetError(f"{label}: cannot be loaded as ONNX (No graph in it): export it again")
    return metadata


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the content of each field; a ValueError or IndexError if the message is damaged."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, end = _varint(message, position)
        elif kind == _BYTES:
            length, position = _varint(message, position)
            end = position + length
        elif kind in _FIXED_SIZES:
            end = position + _FIXED_SIZES[kind]
        else:
            raise ValueError(f"field {number} has type {kind}")
        if end > len(message):
            raise ValueError(f"field {number} ends beyond the message")
        yield number, message[position:end]
        position = end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return a number of protobuf, 7 bits a byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number has more than 10 bytes")
