"""DLPack capsules: numpy and torch take those of this package, which takes theirs, and each deleter is called once."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ccnet.contract import CCNetError
from ccnet.runtime.gpu import dlpack

Array = npt.NDArray[Any]
_new = dlpack._api("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
each_version = pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 1), (1, 2), (2, 0)])
each_dtype = pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", "int32", "bool"])


class Owner:
    """Something that a weak reference can watch."""


def tensor(array: Array, device: int = dlpack.CPU, **changes: Any) -> dlpack.Tensor:
    options = {"owner": array, "read_only": False, "is_copy": False, **changes}
    return dlpack.Tensor(array.ctypes.data, array.shape, array.strides, array.dtype, (device, 0), **options)


def view(found: dlpack.Tensor) -> Array:
    """Return the memory of a tensor as an array, which does not own it."""
    size = sum((length - 1) * stride for length, stride in zip(found.shape, found.strides, strict=True))
    block = (ctypes.c_ubyte * (size + found.dtype.itemsize)).from_address(found.address)
    return np.ndarray(found.shape, found.dtype, memoryview(block), strides=found.strides)


class Exporter:
    """An array of another library: numpy and torch ask it for a capsule of this package."""

    def __init__(self, content: dlpack.Tensor, version: Any = "theirs") -> None:
        self.content, self.version = content, version

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.content.device

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_: Any) -> Any:
        return dlpack.to_capsule(self.content, max_version if self.version == "theirs" else self.version)


@each_dtype
@pytest.mark.parametrize("version", ["theirs", None])
def test_numpy_and_torch_take_our_capsules(dtype: str, version: Any) -> None:
    whole = np.arange(60).reshape(5, 4, 3).astype(dtype)
    for array in (whole, whole[1:4, ::2], whole.transpose(2, 0, 1), whole[:, :, 1]):
        for taken in (np.from_dlpack(Exporter(tensor(array), version)), torch.from_dlpack(Exporter(tensor(array)))):
            np.testing.assert_array_equal(np.asarray(taken), array)
            assert np.shares_memory(np.asarray(taken), whole)


def test_numpy_takes_page_locked_memory() -> None:
    array = np.arange(6, dtype=np.float32)
    cuda_host = 3
    np.testing.assert_array_equal(np.from_dlpack(Exporter(tensor(array, cuda_host))), array)


@each_dtype
def test_capsules_of_numpy_and_torch_are_taken(dtype: str) -> None:
    whole = np.arange(60).reshape(5, 4, 3).astype(dtype)
    for array in (whole, whole[1:4, ::2], whole.transpose(2, 0, 1), whole[2:3, :1]):
        for capsule in (array.__dlpack__(), torch.from_numpy(array).__dlpack__()):
            found = dlpack.from_capsule(capsule)
            assert found.device == (dlpack.CPU, 0)
            np.testing.assert_array_equal(view(found), array)
            assert view(found).ctypes.data == array.ctypes.data


@each_version
def test_owner_lives_until_the_consumer_is_done(version: tuple[int, int] | None) -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    capsule = dlpack.to_capsule(tensor(np.arange(6.0), owner=owner), version)
    del owner
    gc.collect()
    assert alive(), "the capsule keeps it"
    found = dlpack.from_capsule(capsule)
    del capsule
    gc.collect()
    assert alive(), "the consumer keeps it"
    del found
    gc.collect()
    assert not alive()


@each_version
def test_capsule_that_nobody_takes_releases_its_owner(version: tuple[int, int] | None) -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    capsule = dlpack.to_capsule(tensor(np.arange(6.0), owner=owner), version)
    del owner, capsule
    gc.collect()
    assert not alive()


def test_consumer_that_refuses_a_capsule_releases_its_owner_and_says_why() -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    with pytest.raises((BufferError, RuntimeError), match=r"[Dd]evice"):
        np.from_dlpack(Exporter(tensor(np.arange(6.0), dlpack.CUDA, owner=owner)))
    del owner
    gc.collect()
    assert not alive()


@each_version
def test_capsule_is_taken_once(version: tuple[int, int] | None) -> None:
    capsule = dlpack.to_capsule(tensor(np.arange(6.0)), version)
    found = dlpack.from_capsule(capsule)
    with pytest.raises(CCNetError, match="consumed before, or is none"):
        dlpack.from_capsule(capsule)
    np.testing.assert_array_equal(view(found), np.arange(6.0))


def test_what_is_no_capsule_is_refused() -> None:
    with pytest.raises(CCNetError, match="consumed before, or is none"):
        dlpack.from_capsule(np.arange(3))


def test_version_is_one_that_the_consumer_knows() -> None:
    for asked in ((1, 0), (1, 9), (3, 0)):
        capsule = dlpack.to_capsule(tensor(np.arange(6.0)), asked)
        managed = structure(capsule)
        assert (managed.major, managed.minor) == (1, 0)


def test_read_only_arrays_need_a_version_that_knows_it() -> None:
    array = np.arange(6.0)
    with pytest.raises(BufferError, match="readonly"):
        dlpack.to_capsule(tensor(array, read_only=True))
    assert dlpack.from_capsule(dlpack.to_capsule(tensor(array, read_only=True), (1, 0))).read_only
    assert not np.from_dlpack(Exporter(tensor(array, read_only=True))).flags.writeable
    array.flags.writeable = False
    assert dlpack.from_capsule(array.__dlpack__(max_version=(1, 0))).read_only


def test_copies_are_marked() -> None:
    capsule = dlpack.to_capsule(tensor(np.arange(6.0), is_copy=True, read_only=True), (1, 1))
    assert structure(capsule).flags == 3
    found = dlpack.from_capsule(capsule)
    assert found.is_copy
    assert found.read_only


@pytest.mark.parametrize("dtype", ["datetime64[s]", "U3", [("a", "u1"), ("b", "u1")]])
def test_types_that_dlpack_lacks_are_refused(dtype: Any) -> None:
    with pytest.raises(BufferError, match="DLPack only supports"):
        dlpack.to_capsule(tensor(np.zeros(3, dtype)))


def test_strides_that_dlpack_cannot_count_are_refused() -> None:
    array = np.zeros(3, [("a", "u1"), ("b", "<f4")])["b"]
    with pytest.raises(BufferError, match="strides which are a multiple"):
        dlpack.to_capsule(tensor(array))


class Foreign:
    """A capsule that a C library could make: an array of 2×3 float32, with a deleter that counts its calls."""

    def __init__(self, versioned: bool, **changes: int) -> None:
        self.values = np.arange(6, dtype=np.float32)
        self.managed: Any = dlpack._ManagedVersioned() if versioned else dlpack._Managed()
        self.deleted: list[int] = []
        self._delete = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.deleted.append)
        self.managed.deleter = ctypes.cast(self._delete, ctypes.c_void_p)
        self._shape = (ctypes.c_int64 * 2)(2, 3)
        content = self.managed.tensor
        content.data, content.ndim, content.shape = self.values.ctypes.data, 2, self._shape
        content.device_type, content.code, content.bits, content.lanes = dlpack.CPU, 2, 32, 1
        if versioned:
            self.managed.major = 1
        for name, value in changes.items():
            setattr(self.managed if name in ("major", "deleter") else content, name, value)
        name = dlpack._VERSIONED if versioned else dlpack._NAME
        self.capsule = _new(ctypes.addressof(self.managed), name, None)


each_kind = pytest.mark.parametrize("versioned", [True, False])


@each_kind
def test_deleter_is_called_once_with_its_structure(versioned: bool) -> None:
    foreign = Foreign(versioned)
    found = dlpack.from_capsule(foreign.capsule)
    np.testing.assert_array_equal(view(found), np.arange(6).reshape(2, 3))  # without strides it is in C order
    del foreign.capsule
    gc.collect()
    assert not foreign.deleted
    del found
    gc.collect()
    assert foreign.deleted == [ctypes.addressof(foreign.managed)]


@each_kind
def test_offset_is_added(versioned: bool) -> None:
    foreign = Foreign(versioned, byte_offset=4)
    assert dlpack.from_capsule(foreign.capsule).address == foreign.values.ctypes.data + 4


@each_kind
def test_missing_deleter_is_not_called(versioned: bool) -> None:
    foreign = Foreign(versioned, deleter=0)
    dlpack.from_capsule(foreign.capsule)
    gc.collect()
    assert not foreign.deleted


@each_kind
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lanes": 4}, "type code 2 of 32 bits and 4 lanes, expected plain numbers"),
        ({"code": 4, "bits": 16}, "type code 4 of 16 bits"),
        ({"code": 17, "bits": 4}, "type code 17 of 4 bits"),
        ({"bits": 24}, "numbers of 24 bits"),
    ],
    ids=["lanes", "bfloat16", "float4", "24 bits"],
)
def test_array_of_something_else_is_refused_and_deleted(versioned: bool, changes: dict[str, int], words: str) -> None:
    foreign = Foreign(versioned, **changes)
    with pytest.raises(CCNetError, match=words):
        dlpack.from_capsule(foreign.capsule)
    gc.collect()
    assert len(foreign.deleted) == 1


def test_future_layout_is_refused_and_deleted() -> None:
    foreign = Foreign(True, major=2)
    with pytest.raises(CCNetError, match=r"version 2\.0, expected 1\.x"):
        dlpack.from_capsule(foreign.capsule)
    gc.collect()
    assert len(foreign.deleted) == 1


def structure(capsule: Any) -> Any:
    return dlpack._ManagedVersioned.from_address(dlpack._pointer(capsule, dlpack._VERSIONED))
