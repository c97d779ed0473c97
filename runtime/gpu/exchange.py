"""Arrays of other libraries in GPU memory: where they are, and their memory in order with a stream of this process."""

from __future__ import annotations

import ctypes
from ctypes import c_int
from typing import Any

from ccnet.contract import CCNetError

from . import dlpack, library
from .device_array import DeviceArray
from .devices import Device, gpus
from .streams import Event, Stream

_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


def device_of(array: Any) -> Device | None:
    """Return the GPU that holds an array, None for arrays that the host can read and for other objects.

    Args:
        array: Any object; arrays have DLPack or ``__cuda_array_interface__``.

    Returns:
        The device.

    Raises:
        CCNetError: The array is on a GPU that the CUDA driver here does not have.
    """
    if isinstance(array, DeviceArray):
        return array.device
    if hasattr(array, "__dlpack_device__"):
        kind, index = array.__dlpack_device__()
        return Device(index) if kind == dlpack.CUDA else None
    if hasattr(array, "__cuda_array_interface__"):
        return _device_of_address(array.__cuda_array_interface__["data"][0])
    return None


def device_array(array: Any, stream: Stream) -> DeviceArray:
    """Return the memory of an array on a GPU, whose producer's work is done before the stream's next work.

    DLPack is preferred: its producer orders its own stream before ``stream``. ``__cuda_array_interface__`` may name a
    stream, for which ``stream`` then waits; where it names none, as torch's does not, the host waits for the whole GPU.

    Args:
        array: DeviceArray, or an array of another library with DLPack or ``__cuda_array_interface__``.
        stream: Stream of the array's device, see ``device_of``, that will read or write the memory.

    Returns:
        The memory; keep it until the stream's work on it is done.

    Raises:
        CCNetError: The array is not on the stream's device, cannot be exported, or has an unknown type.
    """
    device = device_of(array)
    if device is not stream.device:
        place = device.name if device else "the host"
        raise CCNetError(f"array is on {place}, expected {stream.device.name}: move it there")
    if isinstance(array, DeviceArray):
        array.wait(stream)
        return array
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array, stream)
    return _from_interface(array, stream)


def _from_dlpack(array: Any, stream: Stream) -> DeviceArray:
    with stream.device:
        try:
            capsule = array.__dlpack__(stream=stream.handle, max_version=dlpack.VERSION)
        except TypeError:  # a library from before DLPack 1.0
            capsule = array.__dlpack__(stream=stream.handle)
    tensor = dlpack.from_capsule(capsule)
    return DeviceArray(
        stream.device,
        tensor.address,
        tensor.shape,
        tensor.dtype,
        strides=tensor.strides,
        owner=tensor.owner,
        read_only=tensor.read_only,
    )


def _from_interface(array: Any, stream: Stream) -> DeviceArray:
    interface = array.__cuda_array_interface__
    if interface.get("mask") is not None:
        raise CCNetError("array has a mask, expected all values: fill the masked ones")
    _wait_for_producer(interface, stream)
    address, read_only = interface["data"]
    return DeviceArray(
        stream.device,
        address,
        interface["shape"],
        interface["typestr"],
        strides=interface.get("strides"),
        owner=array,
        read_only=read_only,
    )


def _wait_for_producer(interface: dict[str, Any], stream: Stream) -> None:
    producer = interface.get("stream")
    if producer is None:
        stream.device.synchronize()
        return
    if producer == 0:
        raise CCNetError("array's stream is 0, which __cuda_array_interface__ forbids: use DLPack, or make it 1")
    event = Event(stream.device)
    try:
        with stream.device as device:
            device.call("cuEventRecord", event.handle, producer)
            stream.wait(event)
    finally:
        event.close()


def _device_of_address(address: int) -> Device | None:
    if not address:  # an empty array
        return Device()
    gpus()  # initialises the driver; a context is made on the array's device only
    driver, index = library.driver(), c_int()
    status = driver.cuPointerGetAttribute(ctypes.byref(index), _ORDINAL, address)
    library.check(driver, "cuPointerGetAttribute", status)
    return Device(index.value)
