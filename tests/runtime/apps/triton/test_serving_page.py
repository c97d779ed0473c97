"""docs/serving.md is true: each command runs on the server that its own commands started, and so do the addresses."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ccnet.runtime import Reconstructor, read_frame
from tests.runtime.apps.triton.conftest import DEFAULT_PORTS, PAGE, REPOSITORY, Server, page_commands

MANIFEST = REPOSITORY / "examples/kubernetes/triton.yaml"


def get(server: Server, port: str, path: str) -> str:
    """Return what the server answers on a port of the page."""
    number = server.ports[DEFAULT_PORTS.index(port)]
    with urllib.request.urlopen(f"http://localhost:{number}/{path}") as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def test_first_commands_of_the_page_serve_a_frame(server: Server, folder: Path) -> None:
    """The fixture ran the export and the server; this is the third command."""
    assert len(page_commands("ccnet serve export")) == len(page_commands("ccnet serve run")) == 1
    (client,) = page_commands("python")
    assert "photo.npy: (31, 48, 64)" in server.run(f"{client} {server.grpc}")
    with Reconstructor.open(folder, input_space="srgb") as local:
        expected = local(read_frame(server.folder / "photo.png"))
    assert np.array_equal(np.load(server.folder / "photo.npy"), expected)


def test_bench_of_the_page_prints_a_report(server: Server) -> None:
    (bench,) = page_commands("ccnet serve bench")
    out = server.run(f"{bench} --url {server.grpc}")
    assert re.search(r"largest difference of the cubes 0\n.*\n.*\noverhead: [+-][\d.]+% of medians", out)


def test_python_of_the_page_runs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(server.folder)
    names: dict[str, object] = {}
    exec(code.replace("localhost:8001", server.grpc), names)  # noqa: S102
    assert np.shape(names["cube"]) == (31, 48, 64)


def test_every_command_of_the_page_is_run() -> None:
    tested = (
        "ccnet serve export",
        "ccnet serve run",
        "ccnet serve bench",
        "python examples/triton_client.py",
        "curl -s",
    )
    assert all(line.startswith(tested) for line in page_commands(""))


def test_metrics_of_the_page_are_there(server: Server) -> None:
    (address,) = re.findall(r"^curl -s localhost:(\d+)/(\w+)$", PAGE, re.MULTILINE)
    metrics = get(server, *address)
    named = set(re.findall(r"`(nv_\w+)`", PAGE))
    assert len(named) == 4 and all(f"{name}{{" in metrics for name in named)


def test_models_for_kubernetes_run_on_the_gpu_that_the_deployment_takes(
    server: Server, ccnet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (line,) = re.findall(r"`ccnet (serve export .* --gpu .*)`", PAGE)
    assert f"# ccnet {line}\n" in (MANIFEST.parent / "Dockerfile").read_text(encoding="utf-8")
    deployment = next(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    (tmp_path / "build").symlink_to(server.folder / "build", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert ccnet(*line.split()).code == 0
    config = (tmp_path / "models/ccnet/config.pbtxt").read_text()
    assert "KIND_GPU" in config and "onnxruntime-cuda" in config


def test_container_has_no_ignored_files() -> None:
    kept_out = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {line.strip("/") for line in ignored} <= {line.removeprefix("**/") for line in kept_out}
    assert "models" not in kept_out  # the Dockerfile copies it


def test_kubernetes_manifest_names_ports_and_paths_of_the_server(server: Server) -> None:
    deployment, service = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert tuple(ports.values()) == DEFAULT_PORTS
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        request = container[probe]["httpGet"]
        get(server, ports[request["port"]], request["path"].removeprefix("/"))
    notes = deployment["spec"]["template"]["metadata"]["annotations"]
    assert "nv_inference" in get(server, notes["prometheus.io/port"], notes["prometheus.io/path"].removeprefix("/"))
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
