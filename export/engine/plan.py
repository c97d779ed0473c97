"""A folder's graphs → engines: for which TensorRT, for which shapes, and which of them are up to date.

Nothing here needs torch: a device builds its own engines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from ccnet.contract import PLUGIN_FORMAT, RGB, Artifact, ArtifactFolder, CCNetError, Manifest, sha256
from ccnet.export.fingerprint import digest, source_hashes
from ccnet.runtime.backends import architectures
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.select import Precision
from ccnet.runtime.gpu.cuda import gpu
from ccnet.runtime.tiles.tiling import check_tile

from .budget import DECODE_SIDE, ENCODE_SIDE, bytes_per_pixel, side_within
from .builder import BuildOptions
from .isolated import build_isolated
from .monitor import Progress
from .report import EngineReport, Range

Request = Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime"]

_SOURCES = {"export": ("engine/budget.py", "engine/builder.py", "engine/plan.py", "engine/plugin.py")}


@dataclass(frozen=True, kw_only=True)
class EngineSet:
    """The engines that a folder should have: of ``encode``, of ``decode``, and of ``full`` if it is wanted.

    Attributes:
        backend: The TensorRT to build with.
        precision: Precision of ``decode`` and ``full``; ``encode`` is always FP32, for its sums over all pixels.
        tile: Side of the largest tile that ``decode`` takes, px.
        encode_side: Longest side that ``encode`` takes, px; the runtime reduces a larger frame to means of blocks.
        static: ``decode`` takes tiles of that side only.
        compatible: The engines run with later versions and on every GPU from Ampere on (``tensorrt`` only).
        strip: The engines have no weights; the runtime takes them from the graph, and new ones need no new engine.
        workspace_bytes: Limit on scratch memory; None leaves it to TensorRT.
        device: Index of the GPU that the engines are for.
        plugin: ``decode`` is built from the graph with nodes of the plugin (``tensorrt`` only).
        full: An engine does frames of one tile in one pass, instead of ``encode`` and ``decode``; there is none in
            INT8.

    Raises:
        CCNetError: The plugin was asked for with options that exclude it.
    """

    backend: trt.Name
    precision: Precision = "fp16"
    tile: int = DECODE_SIDE
    encode_side: int = ENCODE_SIDE
    static: bool = False
    compatible: bool = False
    strip: bool = False
    workspace_bytes: int | None = None
    device: int = 0
    plugin: bool = False
    full: bool = True

    def __post_init__(self) -> None:
        if not self.plugin:
            return
        if self.backend != "tensorrt":
            raise CCNetError("tensorrt_rtx runs no plugins, and its parser dies on them: leave --plugin out")
        if self.precision != "fp16" or self.strip or self.compatible:
            raise CCNetError("the plugin is for fp16 engines with their weights and of one GPU: use no other options")

    @property
    def graphs(self) -> list[tuple[str, str]]:
        """Kinds and precisions of the graphs to build from."""
        full = [("full", self.precision)] if self.full and self.precision != "int8" else []
        return [("encode", "fp32"), ("decode", self.precision), *full]

    @property
    def gpu(self) -> str:
        """Name of the GPU, empty where there is none."""
        return gpu(self.device) if self.device or trt.has_gpu() else ""

    @property
    def capability(self) -> architectures.Capability | None:
        """The architecture that the engines must name; None where default engines run."""
        return architectures.target(self.gpu) if self.backend == "tensorrt_rtx" and self.gpu else None

    def within(self, memory: int, manifest: Manifest) -> EngineSet:
        """Return the same engines for the largest sides within a memory budget; a CCNetError if it is too small.

        Args:
            memory: Budget for the scratch memory that the engines share, and for their inputs and outputs, bytes.
            manifest: Manifest of the artifact folder.

        Returns:
            The engines, with the budget as limit of their scratch memory.
        """
        multiple = manifest.size_multiple
        least = 2 * manifest.halo + multiple
        side = side_within(memory, "encode", "fp32", multiple, least)
        tile = side_within(memory, "decode", self.precision, multiple, least)
        return replace(self, tile=tile, encode_side=min(side, ENCODE_SIDE), workspace_bytes=memory)


@dataclass(frozen=True, kw_only=True)
class Job:
    """An engine to build, or one that is up to date.

    Attributes:
        source: The graph.
        file: Name of the engine's file.
        shapes: Smallest, most usual and largest shape of ``rgb``.
        fingerprint: Hash of all that the engine depends on.
        why: Why it must be built; empty where the folder has this very engine.
    """

    source: Artifact
    file: str
    shapes: Range
    fingerprint: str
    why: str


def choose(request: Request, device: int = 0) -> tuple[trt.Name | None, str]:
    """Return the TensorRT to build with, None for none, and why; a request for a missing one is refused by ``plan``.

    Args:
        request: What was asked for.
        device: Index of the GPU that the engines are for.

    Returns:
        The module's name, and the reason in one line.
    """
    named: dict[str, trt.Name] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
    if request in named:
        return named[request], f"{request} was asked for"
    if request == "onnxruntime":
        return None, "ONNX Runtime was asked for, and it runs the graphs themselves"
    return _choose_for(gpu(device)) if device or trt.has_gpu() else _choose_without_gpu()


def _choose_for(here: str) -> tuple[trt.Name | None, str]:
    lacks: list[str] = []
    names = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
    for library in get_args(trt.Name):
        why = "not installed" if library not in trt.available() else architectures.why_unsupported(library, here)
        if not why:
            return library, "; ".join((f"{names[library]} is here, and {here} for it", *lacks))
        lacks.append(f"{names[library]}: {why}")
    return None, f"{'; '.join(lacks)}: ONNX Runtime runs the graphs themselves"


def _choose_without_gpu() -> tuple[trt.Name | None, str]:
    loads = trt.available()
    lack = "TensorRT is here but no GPU" if "tensorrt" in loads else "no TensorRT is installed"
    if "tensorrt_rtx" in loads:
        return "tensorrt_rtx", f"{lack}; TensorRT-RTX is, and builds without a GPU"
    return None, f"{lack}, nor is TensorRT-RTX: ONNX Runtime runs the graphs themselves"


def plan(folder: Path | ArtifactFolder, wanted: EngineSet, *, force: bool = False) -> list[Job]:
    """Return what ``build`` would do; CCNetError where a graph is missing or damaged, or nothing could be built."""
    folder = ArtifactFolder.open(folder)
    manifest = folder.manifest
    check_tile(wanted.tile, manifest.halo, manifest.size_multiple)
    trt.load(wanted.backend)
    there = {(artifact.kind, artifact.precision) for artifact in manifest.artifacts if artifact.format == "onnx"}
    # Folders of version 0.1.0 have no ``full`` in FP16; two passes do without
    graphs = [graph for graph in wanted.graphs if graph[0] != "full" or graph in there]
    return [_job(folder, wanted, kind, precision, force) for kind, precision in graphs]


def left_out(folder: ArtifactFolder, wanted: EngineSet) -> list[Artifact]:
    """Return engines of ``full`` that an earlier build made and that are not wanted; ``build`` removes them."""
    entry = "full", wanted.backend, wanted.precision
    artifacts = () if wanted.full else folder.manifest.artifacts
    return [artifact for artifact in artifacts if (artifact.kind, artifact.format, artifact.precision) == entry]


def build(
    folder: Path | ArtifactFolder, wanted: EngineSet, *, force: bool = False, progress: Progress | None = None
) -> tuple[Manifest, list[EngineReport]]:
    """Build what ``plan`` says and enter it into the manifest; remove what is left out.

    Graphs may come from anywhere: each is parsed and built in a process of its own. A file with TensorRT's kernel
    timings on this GPU stays in the folder, and makes the next build shorter.

    Args:
        folder: Artifact folder.
        wanted: The engines that it should have.
        force: Build engines that are up to date, too.
        progress: Called at each step of a build.

    Returns:
        The new manifest, and a report of each engine that was built.

    Raises:
        CCNetError: As in ``plan`` and ``build_engine``.
    """
    folder, reports = ArtifactFolder.open(folder), []
    for artifact in left_out(folder, wanted):
        folder.remove(artifact)
    for job in plan(folder, wanted, force=force):
        if not job.why:
            continue
        options = BuildOptions(
            backend=wanted.backend,
            shapes={RGB: job.shapes},
            workspace_bytes=wanted.workspace_bytes,
            timing_cache=folder.path / _timings_file(wanted.gpu) if wanted.backend == "tensorrt" else None,
            compatible=wanted.compatible,
            strip=wanted.strip,
            capability=wanted.capability,
            device=wanted.device,
            plugin=job.source.format == PLUGIN_FORMAT,
        )
        report = build_isolated(folder.path / job.source.file, folder.path / job.file, options, progress=progress)
        folder.add(_artifact(folder.path, job, wanted, report))
        reports.append(report)
    return folder.manifest, reports


def _job(folder: ArtifactFolder, wanted: EngineSet, kind: str, precision: str, force: bool) -> Job:
    source = _source(folder, kind, precision, wanted.plugin and kind == "decode")
    folder.verify(source)  # a graph that the manifest does not vouch for becomes no engine
    # An engine without weights depends on the rest of its graph only
    graph = source.details.get("structure", source.sha256) if wanted.strip else source.sha256
    shapes = _range(folder.manifest, kind, wanted)
    flags = (
        wanted.capability,
        wanted.static and kind == "decode",
        wanted.compatible,
        wanted.strip,
        wanted.workspace_bytes,
        source.format,
    )
    built_on = wanted.gpu if wanted.backend == "tensorrt" else ""
    fingerprint = digest(graph, shapes, trt.title(wanted.backend), built_on, flags, source_hashes(_SOURCES))
    file = f"{kind}.{precision}.{wanted.backend}.engine"
    return Job(
        source=source,
        file=file,
        shapes=shapes,
        fingerprint=fingerprint,
        why="a new build was asked for" if force else _why_stale(folder, file, fingerprint),
    )


def _source(folder: ArtifactFolder, kind: str, precision: str, plugin: bool) -> Artifact:
    """Return the graph to build from."""
    if not plugin:
        return folder.find(kind, precision=precision)
    try:
        return folder.find(kind, format=PLUGIN_FORMAT, precision=precision)
    except CCNetError as error:
        raise CCNetError(f"{error}; the graph for the plugin comes from: ccnet export FOLDER --plugin") from error


def _why_stale(folder: ArtifactFolder, file: str, fingerprint: str) -> str:
    """Return why an engine must be built again; empty where it need not be."""
    old = next((artifact for artifact in folder.manifest.artifacts if artifact.file == file), None)
    if old is None or not (folder.path / file).is_file():
        return "there is none"
    if not folder.is_intact([old]):
        return "the one that is there is damaged"
    return "" if old.details.get("inputs") == fingerprint else "graph, options, version or GPU are others"


def _range(manifest: Manifest, kind: str, wanted: EngineSet) -> Range:
    """Return the shapes of ``rgb`` that an engine takes."""

    def shape(side: int) -> tuple[int, ...]:
        return (1, side, side, 3) if manifest.input == "uint8" else (1, 3, side, side)

    # ``full`` takes what ``encode`` reads as it is and ``decode`` as one tile
    sides = {"encode": wanted.encode_side, "decode": wanted.tile, "full": min(wanted.encode_side, wanted.tile)}
    largest = shape(sides[kind])
    smallest = largest if wanted.static and kind == "decode" else shape(manifest.size_multiple)
    return smallest, largest, largest


def _timings_file(here: str) -> str:
    """Return the name of the file of kernel timings, which are those of one version on one GPU."""
    gpu_name = re.sub(r"\W+", "-", here)
    return f"{trt.title('tensorrt').replace(' ', '-')}-{gpu_name}.timings"


def _memory(job: Job, report: EngineReport) -> dict[str, int]:
    """Return the scratch memory of an engine's largest shape and the memory of a pixel, bytes; nothing if unknown."""
    if not report.scratch_bytes:
        return {}
    largest = job.shapes[2]
    packed = largest[3] == 3  # (1, H, W, 3)
    pixels = largest[1] * largest[2] if packed else largest[2] * largest[3]
    pixel = bytes_per_pixel(job.source.kind, report.scratch_bytes, pixels, packed)
    return {"scratch_bytes": report.scratch_bytes, "bytes_per_pixel": pixel}


def _artifact(folder: Path, job: Job, wanted: EngineSet, report: EngineReport) -> Artifact:
    least, _, most = job.shapes
    details: Mapping[str, object] = {
        "inputs": job.fingerprint,
        "window": [least[2], most[2]],  # rgb is square: (1, 3, H, W) or (1, H, W, 3)
        "version": report.version,
        "gpu": report.gpu,
        "capability": architectures.format_capability(wanted.capability) if wanted.capability else "",
        "compatible": wanted.compatible,
        "stripped": wanted.strip,
        "plugin": job.source.format == PLUGIN_FORMAT,
        "structure": job.source.details.get("structure", ""),
        "layers": report.layers,
        "types": dict(report.types),
        "kernels": {part: list(counts) for part, counts in report.kernels.items()},
        "seconds": round(report.seconds, 1),
        **_memory(job, report),
    }
    return Artifact(
        file=job.file,
        kind=job.source.kind,
        format=wanted.backend,
        precision=job.source.precision,
        sha256=sha256(folder / job.file),
        details=dict(details),
    )
