"""Arrays in numpy's ``.npy`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def map_npy(path: Path) -> npt.NDArray[Any]:
    """Map the array of a ``.npy`` file: header and file length are checked, no value is read, nothing is unpickled."""
    return np.lib.format.open_memmap(path, mode="r")
