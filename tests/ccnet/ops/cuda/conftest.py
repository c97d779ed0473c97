"""The emulator of the CUDA kernels as a fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ccnet.ops.cuda.emulator import Emulator, installed_emulator


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The kernels run on the CPU, inside this test module."""
    with installed_emulator(tmp_path_factory.mktemp("kernels")) as emulator:
        yield emulator
