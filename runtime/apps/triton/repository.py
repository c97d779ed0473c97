"""The model repository: a folder of models that a server loads, each with its files and ``config.pbtxt``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ccnet.contract import MANIFEST_NAME, Artifact, ArtifactFolder, CCNetError, hidden_path, make_folder

from .model_config import HEADER, Instances, frame_model, graph_model, to_text
from .service import ServiceSettings

ARTIFACTS = "artifacts"
"""Folder beside ``model.py`` with a copy of the artifact folder, so that a repository is whole by itself."""

MODEL_FILE = f'''"""The model 'ccnet'. {HEADER.removeprefix("# ")}; the server's Python needs the package ccnet-hsi."""

import os
import sys

# The server's Python is isolated and would ignore the variable
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

from ccnet.runtime.apps.triton.python_model import TritonPythonModel  # noqa: E402

__all__ = ["TritonPythonModel"]
'''

VERSION = "1"
"""Folder of each model's files: the server takes the version with the largest number."""


def write_repository(
    folder: ArtifactFolder,
    models: Path,
    settings: ServiceSettings,
    *,
    instances: Instances | None = None,
) -> list[Path]:
    """Write the models ``ccnet``, ``encode`` and ``decode``; each appears when it is whole, in place of an older one.

    Args:
        folder: The artifact folder.
        models: The model repository; models of other names in it are kept.
        settings: Parameters of the model ``ccnet``.
        instances: Copies of each model; None is one on the CPU.

    Returns:
        The folders of the models.

    Raises:
        CCNetError: A file is damaged, the repository cannot be written, or it has a model of these names that another
            program wrote.
    """
    instances = instances or Instances()
    graphs = [_served(folder, kind, settings.precision) for kind in ("encode", "decode")]
    written = []
    try:
        with _replaced(models / "ccnet") as target:
            (target / "config.pbtxt").write_text(to_text(frame_model(settings, instances)))
            (target / VERSION / "model.py").write_text(MODEL_FILE)
            _copy_artifacts(folder, target / VERSION / ARTIFACTS)
        written.append(models / "ccnet")
        for artifact in graphs:
            config = graph_model(artifact, folder.manifest, instances)
            with _replaced(models / artifact.kind) as target:
                (target / "config.pbtxt").write_text(to_text(config))
                (target / VERSION / config["default_model_filename"]).write_bytes(folder.read(artifact))
            written.append(models / artifact.kind)
    except OSError as error:
        raise CCNetError(
            f"{models}: cannot be written ({error.strerror}); choose a folder with enough space that you can write"
        ) from error
    return written


def _served(folder: ArtifactFolder, kind: str, precision: str | None) -> Artifact:
    """Return the file that the server's own backends run: an engine that needs nothing beside it, else the graph."""
    engines = [
        artifact
        for artifact in folder.manifest.artifacts
        if (artifact.kind, artifact.format) == (kind, "tensorrt")
        and not (artifact.details.get("stripped") or artifact.details.get("plugin"))
        and (kind == "encode" or precision in (None, artifact.precision))
    ]
    if engines:
        return engines[-1]
    return folder.find(kind, precision="fp32" if kind == "encode" else precision or "fp32")


def _copy_artifacts(folder: ArtifactFolder, target: Path) -> None:
    target.mkdir()
    for artifact in folder.manifest.artifacts:
        (target / artifact.file).write_bytes(folder.read(artifact))
    shutil.copyfile(folder.path / MANIFEST_NAME, target / MANIFEST_NAME)


@contextmanager
def _replaced(model: Path) -> Iterator[Path]:
    """Yield a hidden folder that takes the place of a model when the block ends, and is removed after an error."""
    make_folder(model.parent)
    if model.exists() and not _is_written_here(model):
        raise CCNetError(f"{model}: exists and is not of 'ccnet serve export', it is kept; choose another repository")
    fresh, old = hidden_path(model, ""), hidden_path(model, "")
    try:
        (fresh / VERSION).mkdir(parents=True)
        yield fresh
        if model.exists():
            model.rename(old)
        try:
            fresh.rename(model)
        except OSError:
            if old.exists():
                old.rename(model)
            raise
    finally:
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)


def _is_written_here(model: Path) -> bool:
    config = model / "config.pbtxt"
    return config.is_file() and config.read_text(errors="replace").startswith(HEADER)
