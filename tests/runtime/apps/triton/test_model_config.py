"""Configurations are messages of the server, and say of encode and decode what their graphs say."""

from __future__ import annotations

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


def parse(text: str) -> Any:
    """Return the message ModelConfig; unknown fields, wrong types and unknown enumerators are errors."""
    reason = "tritonclient is not installed: pip install 'ccnet-hsi[serve]'"
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)
    text_format = pytest.importorskip("google.protobuf.text_format", reason=reason)
    return text_format.Parse(text, messages.ModelConfig())


def tensors(messages: Any, module: Any) -> dict[str, tuple[str, list[int]]]:
    return {each.name: (module.DataType.Name(each.data_type), list(each.dims)) for each in messages}


@pytest.mark.parametrize("name", ["folder", "folder_uint8"])
def test_graphs_take_what_their_configurations_say(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    import tritonclient.grpc.model_config_pb2 as module

    source = ArtifactFolder.open(request.getfixturevalue(name))
    write_repository(source, tmp_path, ServiceSettings(input_space="camera"))
    for kind in ("encode", "decode"):
        config = parse((tmp_path / kind / "config.pbtxt").read_text())
        assert (config.name, config.backend, config.max_batch_size) == (kind, "onnxruntime", 0)
        graph = onnxruntime.InferenceSession(tmp_path / kind / "1" / config.default_model_filename)
        for messages, nodes in ((config.input, graph.get_inputs()), (config.output, graph.get_outputs())):
            expected = {
                node.name: (TYPES[node.type], [size if isinstance(size, int) else -1 for size in node.shape])
                for node in nodes
            }
            found = tensors(messages, module)
            assert {key: value[0] for key, value in found.items()} == {key: value[0] for key, value in expected.items()}
            for key, (_, dims) in found.items():
                assert len(dims) == len(expected[key][1])
                assert all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, expected[key][1], strict=True))


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
