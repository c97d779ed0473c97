"""How a kernel's work is spread over threads."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch

from ccnet.ops import kernels
from ccnet.ops.kernels import kernel, launch

pytestmark = pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")

SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(params=["torch's threads", "threads of our own"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, threads: None) -> Iterator[None]:
    """Three threads, of either kind."""
    torch.set_num_threads(3)
    if request.param == "threads of our own":
        monkeypatch.setattr(kernels, "_openmp", lambda: None)
    elif kernels._openmp() is None:
        pytest.skip("torch brings no GNU OpenMP here")
    yield


def of_python(monkeypatch: pytest.MonkeyPatch, work: object) -> object:
    """A kernel in Python, in the place of one in C; what is returned has to live as long as it runs."""
    made = SIGNATURE(work)
    monkeypatch.setattr(kernels, "_address", lambda name: ctypes.cast(made, ctypes.c_void_p).value)
    return made


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("count", [0, 1, 2, 17, 1000])
def test_every_block_runs_once_with_its_arguments(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, seen = torch.ones(3), []

    def work(given: object, first: int, last: int) -> int:
        seen.append((given[0], given[1], given[2], range(first, last)))  # type: ignore[index]
        return 0

    held = of_python(monkeypatch, work)
    launch("name", count, (7,), (tensor, None))
    assert sorted(index for *_, part in seen for index in part) == [*range(count)]
    assert {one[:3] for one in seen} <= {(7, tensor.data_ptr(), 0)}
    del held


@pytest.mark.usefixtures("pool")
def test_kernel_out_of_memory_raises_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    held = of_python(monkeypatch, lambda given, first, last: first == 5)
    with pytest.raises(MemoryError):
        launch("name", 9, (), ())
    held = of_python(monkeypatch, lambda given, first, last: 0)
    launch("name", 9, (), ())  # and what comes after is as before
    del held


@pytest.mark.usefixtures("pool")
def test_kernels_run_from_many_threads_at_once() -> None:
    """Each with a team of its own."""
    from concurrent.futures import ThreadPoolExecutor

    def copy(value: float) -> bool:
        x, weight, y = torch.full((8, 4, 6), value), torch.zeros(8, 1, 3, 3), torch.empty(8, 4, 6)
        weight[..., 1, 1] = 1
        launch("ccnet_depthwise", 8, (0, 0, 8, 4, 6), (x, weight, y))
        return torch.equal(x, y)

    with ThreadPoolExecutor(4) as users:
        assert all(users.map(copy, [float(value) for value in range(200)]))
