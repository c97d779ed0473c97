"""Out-of-memory errors of all libraries are recognised by their messages."""

from __future__ import annotations

from typing import Any

import pytest

from ccnet.runtime.gpu.out_of_memory import is_out_of_memory


@pytest.mark.parametrize(
    ("told", "lacks"),
    [
        (MemoryError(), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 9"), True),
        (RuntimeError("std::bad_alloc"), True),
        ("CUDA_ERROR_OUT_OF_MEMORY", True),
        ("Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)", True),
        (RuntimeError("Got invalid dimensions for input"), False),
    ],
)
def test_out_of_memory_is_recognised_by_its_message(told: Any, lacks: bool) -> None:
    assert is_out_of_memory(told) == lacks
