"""The host's time for a frame, with engines and a driver that do nothing."""

from __future__ import annotations

import pytest

from ccnet.export.bench import host_overhead
from ccnet.runtime.gpu import cuda


def test_every_variant_is_timed_and_the_driver_is_put_back() -> None:
    before = cuda.has_gpu()
    (overhead,) = host_overhead.measure([(100, 700)], repeats=1)
    assert cuda.has_gpu() == before
    assert overhead.size == (100, 700)
    assert overhead.timings.keys() == {
        host_overhead.COPY,
        host_overhead.PAGE_LOCKED,
        host_overhead.PAGEABLE,
        host_overhead.OWN_CONTEXT,
        host_overhead.THROUGH_HOST,
    }
    assert overhead.beyond_a_copy < overhead.timings[host_overhead.PAGEABLE].median
    table = host_overhead.markdown(host_overhead.document([overhead]))
    assert table.splitlines()[2].startswith("| 100×700 px | ")


def test_frames_that_stay_on_the_gpu_cost_the_host_less_than_those_that_pass_through_it() -> None:
    (overhead,) = host_overhead.measure([(482, 512)], repeats=3)
    least = {variant: timing.least for variant, timing in overhead.timings.items()}
    assert least[host_overhead.PAGE_LOCKED] < least[host_overhead.THROUGH_HOST] / 2


def test_a_function_that_the_driver_library_lacks_is_missing_here_too() -> None:
    with pytest.raises(AttributeError, match="cuMemTeleport"):
        host_overhead.NullDriver().cuMemTeleport  # noqa: B018
