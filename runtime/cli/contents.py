"""Tables of text that describe a file or folder: artifacts, graph, weights, cube, layers, frame or bag."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import (
    BANDS_NM,
    MANIFEST_KEY,
    PRECISION_KEY,
    Artifact,
    ArtifactFolder,
    CCNetError,
    Manifest,
    decode_errors_as,
    prefix_errors,
)
from ccnet.contract.gaps import describe_gaps
from ccnet.runtime.backends.onnxruntime import refuse_external, register_operators
from ccnet.runtime.backends.select import select
from ccnet.runtime.io.cubes import map_cube, read_cube
from ccnet.runtime.io.files import optional_module, read_head
from ccnet.runtime.io.formats.npy import map_npy
from ccnet.runtime.io.frames import FRAME_SUFFIXES, read_frame
from ccnet.runtime.stream.sources.rosbag import IMAGE_TYPES, bag_topics, is_bag

from .layers import describe_layers

Table = list[tuple[str, ...]]

_MAX_HEADER_BYTES = 1 << 24  # of a safetensors file; those of CCNet have about 20,000


def describe_file(path: Path) -> list[Table]:
    """Return tables for an artifact folder, an ONNX graph, weights, a cube, named layers, a frame or a ROS 2 bag.

    Args:
        path: File or folder, which may come from anywhere.

    Returns:
        Tables of one or more rows; all rows of a table have the same number of cells.

    Raises:
        CCNetError: The path is missing, damaged, or of another kind.
    """
    if is_bag(path):
        return _bag(path)
    if path.is_dir() and path.suffix == ".zarr":
        raise CCNetError(f"{path}: is a Zarr group, which this command does not read: 'ccnet view' shows its cubes")
    if path.is_dir():
        return _folder(path)
    readers = {
        ".onnx": _onnx,
        ".safetensors": _weights,
        ".npy": _npy,
        **dict.fromkeys((".mat", ".nc"), _cube),
        ".hdr": _envi,
        **{suffix: _frame for suffix in FRAME_SUFFIXES if suffix != ".npy"},
        **dict.fromkeys((".tif", ".tiff"), _tiff),
    }
    expected = f"an artifact folder, a ROS 2 bag or one of {', '.join(readers)}"
    read_head(path, expected)
    if (suffix := path.suffix.lower()) not in readers:
        raise CCNetError(f"{path}: unknown kind of file {suffix!r}, expected {expected}")
    return readers[suffix](path)


def _folder(path: Path) -> list[Table]:
    folder = ArtifactFolder.open(path)
    manifest = folder.manifest
    table: Table = [("artifact", "kind", "format", "precision", "MB", "SHA-256")]
    for artifact in manifest.artifacts:
        size, state = _size_and_state(folder, artifact)
        table.append((artifact.file, artifact.kind, artifact.format, artifact.precision, size, state))
    with decode_errors_as(path, "ccnet's manifest"):
        built = [artifact for artifact in manifest.artifacts if "layers" in artifact.details]
        engines = [table for artifact in built for table in (_engine(artifact), kernel_table(artifact.details))]
        return [table, *engines, *_manifest(manifest), [("backend auto", _auto(folder))]]


def _auto(folder: ArtifactFolder) -> str:
    """Return the backend that runs the folder on this machine, and why; or why none does."""
    try:
        selection = select(folder)
    except CCNetError as error:
        return f"none: {error}"
    return f"{selection.backend}: {selection.why}"


def _engine(artifact: Artifact) -> Table:
    """Return the manifest's facts on an engine; the engine itself can only be read on its GPU."""
    about = artifact.details
    smallest, largest = about["window"]
    gpu = about["gpu"] or "any GPU that it supports"
    facts: Table = [
        (artifact.file, ""),
        ("  built with", f"{artifact.format} {about['version']}{', compatible' if about['compatible'] else ''}"),
        ("  for", f"{gpu}, sides of {smallest} to {largest} px"),
        ("  weights", "taken from the graph" if about["stripped"] else "inside"),
        ("  layers", f"{about['layers']} before fusion: {_counts(about['types'])}"),
    ]
    if artifact.precision != "fp32" and "FLOAT" in about["types"]:
        graph = f"{artifact.kind}.{artifact.precision}.onnx"
        facts.append(("  not FP16", f"{about['types']['FLOAT']} layers are FP32: 'ccnet inspect' {graph} says why"))
    return facts


def kernel_table(details: Mapping[str, Any]) -> Table:
    """Return the kernels of an engine and the GB that a run of them moves, by part of the network.

    Args:
        details: The manifest's entry of the engine.

    Returns:
        A row for each part, and the totals last; a single row where they were not counted.
    """
    parts = details.get("kernels", {})
    if not parts:
        return [("  kernels", "not counted")]
    kernels, moved = (list(column) for column in zip(*parts.values(), strict=True))
    totals = (sum(kernels), None if None in moved else sum(moved))
    rows = [(f"  {part}", str(count), _gigabytes(size)) for part, (count, size) in (*parts.items(), ("total", totals))]
    return [("  part", "kernels", "GB a tile"), *rows]


def _gigabytes(moved: int | None) -> str:
    return "not counted: free size" if moved is None else f"{moved / 1e9:.2f}"


def _counts(types: Mapping[str, int]) -> str:
    """Return ``5 FLOAT, 2 HALF`` from counts, the largest first."""
    return ", ".join(f"{count} {name}" for name, count in sorted(types.items(), key=lambda item: -item[1]))


def _size_and_state(folder: ArtifactFolder, artifact: Artifact) -> tuple[str, str]:
    """Return an artifact's size in MB, and whether the file is the one that the manifest describes."""
    path = folder.path / artifact.file
    if not path.is_file():
        return "-", "missing"
    state = "intact" if folder.is_intact([artifact]) else "differs from the manifest: damaged, or of another export"
    return f"{path.stat().st_size / 1e6:.2f}", state


def _manifest(manifest: Manifest) -> list[Table]:
    facts: Table = [
        ("weights", manifest.weights_sha256[:16]),
        ("input", manifest.input),
        ("camera", manifest.camera["name"] if manifest.camera else "unknown"),
        ("context", f"{manifest.context_size} values"),
        ("sides", f"multiples of {manifest.size_multiple} px"),
        ("halo", f"{manifest.halo} px"),
    ]
    return [facts, *_mapping("config", manifest.config), *_mapping("tools", manifest.tools)]


def _mapping(title: str, values: Mapping[str, Any]) -> list[Table]:
    return [[(title, ""), *((f"  {key}", _short(value)) for key, value in sorted(values.items()))]] if values else []


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:100]} …"


def _onnx(path: Path) -> list[Table]:
    ort = optional_module("onnxruntime", "cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # nothing runs
    register_operators(options)
    with decode_errors_as(path, "a complete ONNX model of ccnet"):
        data = path.read_bytes()
        refuse_external(str(path), data)
    with decode_errors_as(path, "a complete ONNX model of ccnet"), prefix_errors(path):
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        table: Table = [("tensor", "type", "shape")]
        for role, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
            table += [(f"{role} {node.name}", node.type, f"({', '.join(map(str, node.shape))})") for node in nodes]
        metadata = session.get_modelmeta().custom_metadata_map
        if MANIFEST_KEY not in metadata:
            return [table, [("manifest", "none: 'ccnet export' did not write this file")]]
        nodes = _node_precision(json.loads(metadata.get(PRECISION_KEY, "{}")))
        return [table, *nodes, *_manifest(Manifest.from_json(metadata[MANIFEST_KEY]))]


def _node_precision(about: Mapping[str, Any]) -> list[Table]:
    """Return the counts of nodes by precision, and which are kept in FP32 and why."""
    if not about:
        return []
    facts: Table = [("nodes", f"{sum(about['types'].values())}: {_counts(about['types'])}")]
    facts += [(f"FP32 in {name}", f"{count} nodes: {why}") for name, (count, why) in about["islands"].items()]
    return [facts]


def _weights(path: Path) -> list[Table]:
    """Return facts from the header alone, which is JSON after its length in 8 bytes."""
    with decode_errors_as(path, "a complete safetensors file"):
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"the header claims {length} bytes")
            tensors = json.loads(file.read(length))
        notes = tensors.pop("__metadata__", {})
        end = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        if end != size:
            raise ValueError(f"it has {size} bytes, but {end} according to the header")
        parameters = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
        dtypes = ", ".join(sorted({tensor["dtype"] for tensor in tensors.values()}))
        config = json.loads(notes.pop("config", "{}"))
        facts: Table = [("tensors", str(len(tensors))), ("parameters", f"{parameters:,}"), ("dtype", dtypes)]
        return [facts, *_mapping("config", config), *_mapping("notes", notes)]


def _npy(path: Path) -> list[Table]:
    with decode_errors_as(path, "a complete .npy array"):
        shape = map_npy(path).shape
    return _cube(path) if shape[:1] == (len(BANDS_NM),) else _frame(path)


def _tiff(path: Path) -> list[Table]:
    if _not_a_cube(path) is None:
        return _cube(path)
    try:
        return _frame(path)
    except CCNetError as error:
        return _layers(path, error)


def _envi(path: Path) -> list[Table]:
    error = _not_a_cube(path)
    return _cube(path) if error is None else _layers(path, error)


def _not_a_cube(path: Path) -> CCNetError | None:
    """Return why the file cannot be opened as a cube, None if it can."""
    try:
        map_cube(path).close()
    except CCNetError as error:
        return error
    return None


def _layers(path: Path, error: CCNetError) -> list[Table]:
    """Return the tables of a file of named layers; where it is none, raise the error."""
    try:
        return describe_layers(path)
    except CCNetError:
        raise error from None


def _bag(path: Path) -> list[Table]:
    """Return the topics of a ROS 2 bag, and those that ``ccnet stream`` reads."""
    topics: Table = [("topic", "type", "messages", "ccnet stream")]
    topics += [
        (name, kind, str(count), "reads it" if kind in IMAGE_TYPES else "") for name, kind, count in bag_topics(path)
    ]
    return [[("ROS 2 bag", f"{sum(int(row[2]) for row in topics[1:])} messages")], topics]


def _cube(path: Path) -> list[Table]:
    cube = read_cube(path)
    bands: Table = [("nm", "min", "mean", "max")]
    gaps = describe_gaps(cube)
    for nm, band in zip(BANDS_NM, cube, strict=True):
        values = band[~np.isnan(band)] if gaps else band
        facts = (values.min(), values.mean(), values.max()) if values.size else (math.nan,) * 3
        bands.append((str(nm), *(f"{value:.4f}" for value in facts)))
    values = cube[~np.isnan(cube)] if gaps else cube
    size = f"{cube.shape[2]}×{cube.shape[1]} px, {len(BANDS_NM)} bands"
    return [[("cube", size), *_range(values), *_gaps(gaps or {}, cube[0].size)], bands]


def _gaps(gaps: Mapping[str, Any], pixels: int) -> Table:
    """Return a row for each mask of an ENVI header that leaves out pixels or bands."""
    rows: Table = []
    if count := gaps.get("pixels"):
        rows.append(("data ignore value", f"{count} of {pixels} pixels have no data"))
    if bands := gaps.get("bands"):
        rows.append(("bbl", f"{len(bands)} of {len(BANDS_NM)} bands have no data: {', '.join(map(str, bands))} nm"))
    return rows


def _frame(path: Path) -> list[Table]:
    frame = read_frame(path, as_stored=True)
    height, width = frame.shape[:2]
    return [[("frame", f"{width}×{height} px, {height * width / 1e6:.3g} Mpx, {frame.dtype}"), *_range(frame)]]


def _range(array: npt.NDArray[Any]) -> Table:
    return [("values", f"{array.min():.5g} to {array.max():.5g}, mean {np.mean(array, dtype=np.float64):.5g}")]
