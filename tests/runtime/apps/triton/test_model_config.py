"""Configurations are messages of the server, and say of encode and decode what their graphs say."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from ccnet.contract import ArtifactFolder
from ccnet.runtime.apps.triton.model_config import Instances, frame_model, graph_model, to_text
from ccnet.runtime.apps.triton.repository import write_repository
from ccnet.runtime.apps.triton.service import ServiceSettings
from tests.runtime.conftest import artifact, manifest, refusal

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8"}


def message_types() -> Any:
    reason = 'tritonclient is not installed: pip install ".[serve]"'
    return pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)


def parse(text: str) -> Any:
    """Return the message ModelConfig; unknown fields, wrong types and unknown enumerators are errors."""
    message = message_types().ModelConfig()
    return importlib.import_module("google.protobuf.text_format").Parse(text, message)


def tensors(messages: Any) -> dict[str, tuple[str, list[int]]]:
    names = message_types().DataType.Name
    return {each.name: (names(each.data_type), list(each.dims)) for each in messages}


@pytest.mark.parametrize("name", ["folder", "folder_uint8"])
def test_graphs_take_what_their_configurations_say(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = ArtifactFolder.open(request.getfixturevalue(name))
    write_repository(source, tmp_path, ServiceSettings(input_space="camera"))
    for kind in ("encode", "decode"):
        config = parse((tmp_path / kind / "config.pbtxt").read_text())
        assert (config.name, config.backend, config.max_batch_size) == (kind, "onnxruntime", 0)
        graph = onnxruntime.InferenceSession(tmp_path / kind / "1" / config.default_model_filename)
        for messages, nodes in ((config.input, graph.get_inputs()), (config.output, graph.get_outputs())):
            found, nodes_by_name = tensors(messages), {node.name: node for node in nodes}
            assert found.keys() == nodes_by_name.keys()
            for key, (type, dims) in found.items():
                node = nodes_by_name[key]
                assert type == TYPES[node.type]
                assert dims == [size if isinstance(size, int) else -1 for size in node.shape]


def test_frame_model_has_its_settings_as_parameters() -> None:
    settings = ServiceSettings(memory=5_000_000, context="every:8")
    config = parse(to_text(frame_model(settings, Instances(count=2, gpus=(0, 3)))))
    texts = {name: parameter.string_value for name, parameter in config.parameters.items()}
    assert ServiceSettings.parse(texts) == settings
    (group,) = config.instance_group
    assert (group.count, list(group.gpus), group.KIND_GPU) == (2, [0, 3], group.kind)
    assert [tensor.optional for tensor in config.input] == [True] * 4


def test_engine_is_a_plan_of_the_tensorrt_backend() -> None:
    engine = artifact("decode", "tensorrt", "fp16")
    config = parse(to_text(graph_model(engine, manifest(), Instances(gpus=(0,)))))
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    assert config.default_model_filename == "model.plan"
    assert [output.name for output in config.output] == ["cube", "cube_sum"]
    encode = parse(to_text(graph_model(replace(engine, kind="encode"), manifest(), Instances())))
    assert [tensor.name for tensor in (*encode.input, *encode.output)] == ["rgb", "context"]


def test_instances_without_a_copy_are_refused() -> None:
    refusal(lambda: Instances(count=0), "instances are 0", "at least 1")
    refusal(lambda: Instances(gpus=(-1,)), "GPUs from 0 on")
