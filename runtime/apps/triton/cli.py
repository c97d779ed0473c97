"""``ccnet serve``: a model repository for the Triton Inference Server, the server on this machine, and its speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccnet.contract import ArtifactFolder
from ccnet.runtime.cli.options import (
    ArtifactsArgument,
    BackendOption,
    InputSpaceOption,
    MemoryOption,
    PrecisionOption,
    ThreadsOption,
    to_bytes,
)

app = typer.Typer()
serve = typer.Typer(help="Serve frames to other programs with the Triton Inference Server.", no_args_is_help=True)
app.add_typer(serve, name="serve")

ModelsArgument = Annotated[Path, typer.Argument(metavar="MODELS", help="Folder of the model repository.")]


@serve.command("export")
def export_models(
    artifacts: ArtifactsArgument,
    models: ModelsArgument,
    input_space: InputSpaceOption = "srgb",
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    context: Annotated[
        str, typer.Option("--context", help="Context of a sequence's frames: every:N, scene or smooth.")
    ] = "scene",
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", min=0.001, help="Largest frame, Mpx.")] = 32.0,
    instances: Annotated[int, typer.Option("--instances", min=1, help="Copies of each model on each device.")] = 1,
    gpus: Annotated[
        list[int] | None, typer.Option("--gpu", min=0, help="Index of a GPU to run on; repeat it for several.")
    ] = None,
) -> None:
    """Write a model repository for the Triton Inference Server.

    It has the model ccnet (a frame or picture of any size in, a cube or projection out), and encode and decode for
    programs that cut their own tiles: graphs for the server's onnxruntime backend, or engines for its tensorrt backend.
    """
    from .model_config import Instances
    from .repository import write_repository
    from .service import ServiceSettings

    settings = ServiceSettings(
        input_space=input_space,
        backend=backend,
        precision=precision,
        memory=to_bytes(memory),
        threads=threads,
        context=context,
        max_megapixels=max_megapixels,
    )
    copies = Instances(count=instances, gpus=tuple(gpus or ()))
    for path in write_repository(ArtifactFolder.open(artifacts), models, settings, instances=copies):
        print(path)


@serve.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_models(
    context: typer.Context,
    models: ModelsArgument,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option("--http-port", help="Port of HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="Port of gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Port of the metrics for Prometheus.")] = 8002,
) -> None:
    """Serve the model ccnet on this machine, until it is stopped.

    Runs the tritonserver of the package nvidia-pytriton, which has the python backend alone. More options go to
    tritonserver as they are.
    """
    from .server import Ports, run_server

    ports = Ports(host=host, http=http_port, grpc=grpc_port, metrics=metrics_port)
    run_server(models, ports, context.args)


@serve.command("bench")
def bench_models(
    artifacts: ArtifactsArgument,
    url: Annotated[str, typer.Option("--url", help="gRPC address of the server, on this machine.")] = "localhost:8001",
    side: Annotated[int, typer.Option("--side", min=16, help="Side of the frames, px.")] = 512,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of each measurement.")] = 16,
    clients: Annotated[int, typer.Option("--clients", min=1, help="Clients at the same time.")] = 4,
) -> None:
    """Measure a server on this machine beside the same artifacts in this process: frames a second, 95th percentile.

    This process takes input colour space, backend, precision, memory and threads from the server's model.
    """
    from .load import measure

    print(*measure(artifacts, url, side=side, frames=frames, clients=clients).lines(), sep="\n")
