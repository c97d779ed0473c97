"""A folder's graphs → engines: for which TensorRT, of which shapes, and which of them need no building again.

Nothing here needs torch: a camera's computer builds its own engines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccnet.contract import RGB, Artifact, Manifest, sha256
from ccnet.export.fingerprint import code, digest
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.cuda import gpus
from ccnet.runtime.backends.select import Precision
from ccnet.runtime.tiling import check_tile

from . import builder as engine
from .builder import EngineReport, Progress, Range
from .isolated import build_isolated

Asked = Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime"]

_ENCODE_SIDE = 1024  # px; the runtime reduces what it encodes to about 512×512


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which engines.

    precision: of ``decode``; ``encode`` is FP32 always, for its sums over all pixels.
    window: side (px) of the largest tile that ``decode`` will see.
    static: ``decode`` takes that one shape and no other.
    compatible: runs with later versions and on every GPU from Ampere on (``tensorrt`` only).
    strip: holds no weights; the runtime takes them from the graph, and new ones need no new engine.
    workspace_bytes: most scratch memory; None leaves it to TensorRT.
    """

    backend: trt.Name
    precision: Precision = "fp16"
    window: int = 512
    static: bool = False
    compatible: bool = False
    strip: bool = False
    workspace_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One engine: of which graph, under which name, for which shapes of ``rgb``.

    inputs: hash of all that it depends on. why: it must be built; empty where the folder has this very engine.
    """

    source: Artifact
    file: str
    shapes: Range
    inputs: str
    why: str


def choose(asked: Asked) -> tuple[trt.Name | None, str]:
    """The TensorRT to build with, None for none, and why. One that was asked for and is missing is refused later."""
    named: dict[str, trt.Name] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
    if asked in named:
        return named[asked], f"{asked} was asked for"
    if asked == "onnxruntime":
        return None, "ONNX Runtime was asked for, and it runs the graphs themselves"
    loads = trt.available()
    if "tensorrt" in loads and trt.has_gpu():
        return "tensorrt", f"TensorRT is here, and {gpus()[0]} for it"
    lack = "TensorRT is here but no GPU" if "tensorrt" in loads else "no TensorRT is installed"
    if "tensorrt_rtx" in loads:
        return "tensorrt_rtx", f"{lack}; TensorRT-RTX is, and builds without a GPU"
    return None, f"{lack}, nor is TensorRT-RTX: ONNX Runtime runs the graphs themselves"


def plan(folder: Path, options: Options, *, force: bool = False) -> list[Job]:
    """What ``build`` would do. CCNetError where a graph is missing or damaged, or where nothing could be built."""
    manifest = Manifest.read(folder)
    check_tile(options.window, manifest.halo, manifest.size_multiple)
    trt.load(options.backend)
    return [
        _job(folder, manifest, options, kind, precision, force)
        for kind, precision in (("encode", "fp32"), ("decode", options.precision))
    ]


def build(
    folder: Path, options: Options, *, force: bool = False, progress: Progress | None = None
) -> tuple[Manifest, list[EngineReport]]:
    """Build what ``plan`` says and enter it into the manifest; returns that, and a report of each engine built.

    Graphs may come from anywhere: each is parsed and built in a process of its own.

    A file with TensorRT's kernel timings on this GPU stays in the folder, and makes the next build shorter.
    """
    manifest, reports = Manifest.read(folder), []
    for job in plan(folder, options, force=force):
        if not job.why:
            continue
        report = build_isolated(
            folder / job.source.file,
            folder / job.file,
            backend=options.backend,
            shapes={RGB: job.shapes},
            workspace_bytes=options.workspace_bytes,
            timing_cache=folder / _timings() if options.backend == "tensorrt" else None,
            compatible=options.compatible,
            strip=options.strip,
            progress=progress,
        )
        manifest = manifest.with_artifact(_artifact(folder, job, options, report))
        manifest.write(folder)
        reports.append(report)
    return manifest, reports


def _job(folder: Path, manifest: Manifest, options: Options, kind: str, precision: str, force: bool) -> Job:
    source = manifest.find(kind, precision=precision)
    source.read(folder)  # no engine is made of a graph that the manifest does not vouch for
    # What an engine without weights depends on is the rest of its graph
    graph = source.details.get("structure", source.sha256) if options.strip else source.sha256
    shapes = _range(manifest, kind, options)
    flags = (options.static and kind == "decode", options.compatible, options.strip, options.workspace_bytes)
    gpu = gpus()[0] if options.backend == "tensorrt" and trt.has_gpu() else ""
    inputs = digest(graph, shapes, trt.title(options.backend), gpu, flags, code(engine.__file__, __file__))
    file = f"{kind}.{precision}.{options.backend}.engine"
    return Job(
        source=source,
        file=file,
        shapes=shapes,
        inputs=inputs,
        why="it was asked for" if force else _stale(folder, manifest, file, inputs),
    )


def _stale(folder: Path, manifest: Manifest, file: str, inputs: str) -> str:
    """Why an engine must be built again; empty where it need not."""
    old = next((artifact for artifact in manifest.artifacts if artifact.file == file), None)
    if old is None or not (folder / file).is_file():
        return "there is none"
    if sha256(folder / file) != old.sha256:
        return "the one that is there is damaged"
    return "" if old.details.get("inputs") == inputs else "graph, options, version or GPU are others"


def _range(manifest: Manifest, kind: str, options: Options) -> Range:
    def shape(side: int) -> tuple[int, ...]:
        return (1, side, side, 3) if manifest.input == "uint8" else (1, 3, side, side)

    window = shape(options.window)
    if kind == "encode":
        return shape(manifest.size_multiple), window, shape(max(options.window, _ENCODE_SIDE))
    return (window, window, window) if options.static else (shape(manifest.size_multiple), window, window)


def _timings() -> str:
    """A file's name; timings are of one version on one GPU."""
    gpu = re.sub(r"\W+", "-", gpus()[0]) if trt.has_gpu() else ""
    return f"{trt.title('tensorrt').replace(' ', '-')}-{gpu}.timings"


def _artifact(folder: Path, job: Job, options: Options, report: EngineReport) -> Artifact:
    least, _, most = job.shapes
    details: Mapping[str, object] = {
        "inputs": job.inputs,
        "window": [least[2], most[2]],  # rgb is square: (1, 3, H, W) or (1, H, W, 3)
        "version": report.version,
        "gpu": report.gpu,
        "compatible": options.compatible,
        "stripped": options.strip,
        "structure": job.source.details.get("structure", ""),
        "layers": report.layers,
        "types": dict(report.types),
        "seconds": round(report.seconds, 1),
    }
    return Artifact(
        file=job.file,
        kind=job.source.kind,
        format=options.backend,
        precision=job.source.precision,
        sha256=sha256(folder / job.file),
        details=dict(details),
    )
