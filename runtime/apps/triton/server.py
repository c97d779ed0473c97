"""The Triton server of the package nvidia-pytriton, started on this machine with this Python environment."""

from __future__ import annotations

import importlib.util
import os
import platform
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ccnet.contract import CCNetError, hidden_path, install_command, make_folder

_PACKAGE = "pytriton"
_INSTALL = f"{install_command('serve')}, or serve the folder with NVIDIA's container (docs/serving.md)"


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The server's addresses.

    Attributes:
        host: Address to listen on.
        http: Port of HTTP.
        grpc: Port of gRPC.
        metrics: Port of the metrics for Prometheus.
    """

    host: str = "127.0.0.1"
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


def server_problem() -> str | None:
    """Return why the server of the package does not run here; None if it should."""
    try:
        _server_files()
    except CCNetError as error:
        return str(error)
    return None


def server_command(models: Path, ports: Ports, arguments: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Return the command line that serves a model repository, and its environment.

    Args:
        models: The model repository.
        ports: Addresses to listen on.
        arguments: More options of tritonserver. Without ``--load-model`` it loads ``ccnet`` alone, since this server
            has the python backend and no other.

    Returns:
        The words of the command, and the environment variables.

    Raises:
        CCNetError: The repository or the server is missing.
    """
    if not (models / "ccnet/config.pbtxt").is_file():
        raise CCNetError(
            f"{models}: holds no model ccnet, expected a model repository: ccnet serve export ARTIFACTS MODELS"
        )
    binary, backend, stub = _server_files()
    command = [
        str(binary),
        f"--model-repository={models.resolve()}",
        f"--backend-directory={_backends(backend, stub)}",
        "--disable-auto-complete-config",
        "--model-control-mode=explicit",
        f"--http-address={ports.host}",
        f"--http-port={ports.http}",
        f"--grpc-address={ports.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        *([] if any(word.startswith("--load-model") for word in arguments) else ["--load-model=ccnet"]),
        *arguments,
    ]
    return command, _environment(binary)


def run_server(models: Path, ports: Ports, arguments: Sequence[str] = ()) -> NoReturn:
    """Become the server: this process, its signals and its exit code are tritonserver's from here on.

    Args:
        models: The model repository.
        ports: Addresses to listen on.
        arguments: More options of tritonserver.
    """
    command, environment = server_command(models, ports, arguments)
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606


def _server_files() -> tuple[Path, Path, Path]:
    """Return the paths of the server, of its python backend and of the stub for this Python."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise CCNetError(f"tritonserver is not installed: {_INSTALL}")
    folder = Path(found.submodule_search_locations[0], "tritonserver")
    version = "{}.{}".format(*sys.version_info)
    files = (
        folder / "bin/tritonserver",
        folder / "backends/python",
        folder / "python_backend_stubs" / version / "triton_python_backend_stub",
    )
    if missing := [path for path in files if not path.exists()]:
        raise CCNetError(f"tritonserver of nvidia-pytriton has no {missing[0].name} for Python {version}: {_INSTALL}")
    if (system := f"{platform.system()} {platform.machine()}") != "Linux x86_64":
        raise CCNetError(f"tritonserver of nvidia-pytriton is for Linux x86_64, this is {system}: {_INSTALL}")
    return files


def _backends(backend: Path, stub: Path) -> Path:
    """Return a folder with the python backend beside its stub, as the server looks for them; both are links."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        make_folder(cache)
    except CCNetError:
        cache = Path(tempfile.gettempdir())
    private = cache / f"ccnet-triton-{os.getuid()}"
    _make_private(private)
    folder = private / "python"
    make_folder(folder)
    for source in (*backend.iterdir(), stub):
        link = hidden_path(folder / source.name)
        link.symlink_to(source)
        link.replace(folder / source.name)  # another process may do the same
    return folder.parent


def _make_private(folder: Path) -> None:
    """Create a folder of this user that others cannot write; the server loads libraries from it.

    Args:
        folder: The folder. Its name in ``/tmp`` is easy to guess, so another user may have made it before.

    Raises:
        CCNetError: It is a link or another user's, or cannot be made.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise CCNetError(f"{folder}: is a link or not yours, expected a folder of yours; set XDG_CACHE_HOME")
        folder.chmod(0o700)
    except OSError as error:
        raise CCNetError(f"{folder}: cannot be made ({error.strerror}); set XDG_CACHE_HOME") from error


def _environment(binary: Path) -> dict[str, str]:
    """Return the environment in which the server finds its libraries, and the stub this Python and its packages."""
    site = binary.parents[3]
    libraries = [str(site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    before = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *([before] if before else [])]),
    }
