"""Files of named layers without wavelengths, such as the indices of a survey: GeoTIFF and ENVI, read with rasterio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as

from .georeference import open_raster

_EXPECTED = "a GeoTIFF or an ENVI file of named layers"


def read_layers(path: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the name and the values (H, W) of each layer.

    Args:
        path: The ``.tif``, or the ``.hdr`` of an ``.img``.

    Yields:
        Name and values.

    Raises:
        CCNetError: The file is damaged, or a layer has no name.
    """
    driver, values = ("ENVI", path.with_suffix(".img")) if path.suffix.lower() == ".hdr" else ("GTiff", path)
    with decode_errors_as(path, _EXPECTED), open_raster(values, driver) as raster:
        if not all(raster.descriptions):
            raise CCNetError(f"{path}: has layers without a name, expected {_EXPECTED}")
        for number, name in enumerate(raster.descriptions, start=1):
            yield name, raster.read(number)
