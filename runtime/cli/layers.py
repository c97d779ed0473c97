"""The table of a file of named layers without wavelengths, such as a survey's indices: GeoTIFF or ENVI, by GDAL."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ccnet.contract import CCNetError, decode_errors_as
from ccnet.runtime.io.formats.georeference import open_raster

_EXPECTED = "a GeoTIFF or an ENVI file of named layers"


def describe_layers(path: Path) -> list[list[tuple[str, ...]]]:
    """Return the size of a file's layers, and the range of the finite values of each.

    Args:
        path: The ``.tif``, or the ``.hdr`` of an ``.img``.

    Returns:
        Two tables.

    Raises:
        CCNetError: The file is damaged, or a layer has no name.
    """
    driver, values = ("ENVI", path.with_suffix(".img")) if path.suffix.lower() == ".hdr" else ("GTiff", path)
    rows: list[tuple[str, ...]] = [("layer", "min", "mean", "max", "not finite")]
    with decode_errors_as(path, _EXPECTED), open_raster(values, driver) as raster:
        if not all(raster.descriptions):
            raise CCNetError(f"{path}: has layers without a name, expected {_EXPECTED}")
        for number, name in enumerate(raster.descriptions, start=1):
            layer = raster.read(number)
            finite = layer[np.isfinite(layer)]
            facts = (finite.min(), finite.mean(dtype=np.float64), finite.max()) if finite.size else (math.nan,) * 3
            rows.append((name, *(f"{value:.4f}" for value in facts), str(layer.size - finite.size)))
        size = f"{raster.width}×{raster.height} px, {raster.dtypes[0]}"
    return [[("layers", f"{size}, {len(rows) - 1} without wavelengths: neither a cube nor a frame")], rows]
