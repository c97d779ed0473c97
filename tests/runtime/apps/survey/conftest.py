"""Archives of small frames, and tasks on the small network of the runtime's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.runtime import Projection
from ccnet.runtime.apps.survey.worker import Engine, Task
from tests.runtime.conftest import pixels

pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install ".[scale]"')

INDEX = Projection.differences({"ndre": (700, 670)})


def archive(folder: Path, count: int, side: int = 16) -> Path:
    """Write frames 0000.npy, 0001.npy, … into a folder and return it."""
    folder.mkdir(parents=True)
    for number in range(count):
        np.save(folder / f"{number:04}.npy", pixels(side, side, seed=number))
    return folder


@pytest.fixture
def task(folder: Path, tmp_path: Path) -> Callable[..., Task]:
    """task(projection=None, …): a task that writes into ``out``."""

    def make(**options: Any) -> Task:
        engine = Engine(artifacts=str(folder), threads=1)
        options = {"projection": INDEX, **options}
        format = "hdr" if options["projection"] is None else "npy"
        return Task(engine=engine, out=str(tmp_path / "out"), **{"format": format, **options})

    return make
