"""One server for all tests: the commands of docs/serving.md, on the small network of the runtime's tests."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ccnet.runtime.apps.triton.server import server_problem
from tests.runtime.conftest import pixels

REPOSITORY = Path(__file__).resolve().parents[4]
PAGE = (REPOSITORY / "docs/serving.md").read_text(encoding="utf-8")
START_S = 60
DEFAULT_PORTS = ("8000", "8001", "8002")


def page_commands(program: str) -> list[str]:
    """Return the page's command lines that start with some words, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(program)]


def free_ports() -> list[str]:
    """Return three ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in DEFAULT_PORTS]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """A server in a folder with ``build/ccnet``, ``models`` and ``photo.png``, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, free_ports()
        self.process: subprocess.Popen[bytes] | None = None
        self.output = (folder / "server.log").open("ab")

    @property
    def grpc(self) -> str:
        return f"localhost:{self.ports[1]}"

    def run(self, line: str) -> str:
        """Run a command line of the page to its end, with this server's ports, and return its output."""
        result = subprocess.run(self._words(line), cwd=self.folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def start(self) -> None:
        """Start the server by the page's command, and wait until it is ready."""
        (line,) = page_commands("ccnet serve run")
        names = ("--http-port", "--grpc-port", "--metrics-port")
        options = [word for pair in zip(names, self.ports, strict=True) for word in pair]
        command = [*self._words(line), *options]
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=self.output, stderr=self.output)
        client, until = self.client(), time.monotonic() + START_S
        while not self._is_ready(client):
            assert self.process.poll() is None and time.monotonic() < until, self.log()
            time.sleep(0.1)
        client.close()

    def stop(self, *, kill: bool = False) -> None:
        assert self.process
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(60)  # a model whose process died keeps tritonserver for 30 s

    def client(self) -> Any:
        import tritonclient.grpc as triton

        return triton.InferenceServerClient(self.grpc)

    def infer(self, frame: npt.NDArray[Any], client: Any = None, **options: Any) -> Any:
        """Return the cube of a frame."""
        import tritonclient.grpc as triton

        inputs = []
        for name, array in {"frame": frame, **options.pop("inputs", {})}.items():
            inputs.append(triton.InferInput(name, array.shape, "UINT8" if array.dtype == np.uint8 else "FP32"))
            inputs[-1].set_data_from_numpy(array)
        return (client or self.client()).infer("ccnet", inputs, **options).as_numpy("cube")

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def _words(self, line: str) -> list[str]:
        for default, port in zip(DEFAULT_PORTS, self.ports, strict=True):
            line = line.replace(f"localhost:{default}", f"localhost:{port}")
        words = shlex.split(line.removesuffix("&"))
        program = {
            "ccnet": [sys.executable, "-c", "from ccnet.runtime.cli.main import main; main()"],
            "python": [sys.executable],
        }[words[0]]
        return [*program, *(str(REPOSITORY / word) if word.startswith("examples/") else word for word in words[1:])]

    @staticmethod
    def _is_ready(client: Any) -> bool:
        from tritonclient.utils import InferenceServerException

        try:
            return bool(client.is_model_ready("ccnet"))
        except InferenceServerException:
            return False


@pytest.fixture(scope="session")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if problem := server_problem():
        pytest.skip(problem)
    pytest.importorskip("tritonclient.grpc", reason='tritonclient is not installed: pip install ".[serve]"')
    place = tmp_path_factory.mktemp("serving")
    (place / "build").mkdir()
    (place / "build/ccnet").symlink_to(folder, target_is_directory=True)
    Image.fromarray(pixels(48, 64)).save(place / "photo.png")
    running = Server(place)
    (export,) = page_commands("ccnet serve export")
    running.run(export)
    running.start()
    yield running
    running.stop()
    running.output.close()
