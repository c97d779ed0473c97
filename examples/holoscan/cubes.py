"""An operator of NVIDIA Holoscan, frames in and cubes out, in a graph that needs no GPU.

    python examples/holoscan/cubes.py PICTURES CUBES [ARTIFACTS]

Needs holoscan-cu13 and ccnet for the same Python. The operator takes an entity with a tensor (H, W, 3) of RGB, as the
operators of Holoscan emit it, and emits an entity with the tensor "cube", (31, H, W) float32. In another graph, put any
source of RGB frames before it, and behind it what takes tensors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from holoscan.conditions import CountCondition
from holoscan.core import Application, Operator, OperatorSpec

from ccnet.runtime import CCNetError, Reconstructor, read_frame
from ccnet.runtime.io.frames import frame_paths
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.sinks import open_sink


class CCNetOp(Operator):
    """Frame → cube; a frame that cannot be reconstructed is logged, and no cube is emitted for it."""

    def __init__(
        self,
        fragment: Any,
        *args: Any,
        artifacts: str = "build/ccnet",
        input_space: str = "srgb",
        context_policy: str = "every:1",
        in_tensor_name: str = "",
        **kwargs: Any,
    ) -> None:
        self._artifacts, self._input_space, self._in_tensor_name = artifacts, input_space, in_tensor_name
        self._policy = ContextPolicy(context_policy)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("frame")
        spec.output("cube")

    def start(self) -> None:
        """Open the graphs or engines once."""
        self._reconstruct = Reconstructor.open(self._artifacts, input_space=self._input_space)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Turn the next frame into its cube."""
        tensors = op_input.receive("frame")
        try:
            tensor = tensors[self._in_tensor_name] if self._in_tensor_name else next(iter(tensors.values()))
            frame = self._reconstruct.camera_frame(tensor)
            cube = self._reconstruct(frame, self._policy(self._reconstruct, frame))
        except CCNetError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            return
        op_output.emit({"cube": cube}, "cube")

    def stop(self) -> None:
        """Free the graphs or engines."""
        self._reconstruct.close()


class PicturesOp(Operator):
    """A source: a picture each time it is scheduled."""

    def __init__(self, fragment: Any, *args: Any, paths: list[Path], **kwargs: Any) -> None:
        self._paths = iter(paths)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the port."""
        spec.output("frame")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Emit the next picture."""
        op_output.emit({"frame": read_frame(next(self._paths))}, "frame")


class CubesOp(Operator):
    """A sink: a folder of cubes, numbered."""

    def __init__(self, fragment: Any, *args: Any, folder: Path, **kwargs: Any) -> None:
        self._folder = open_sink(str(folder))
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the port."""
        spec.input("cube")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write the next cube."""
        cube = np.asarray(op_input.receive("cube")["cube"])  # the memory of the tensor
        with self._folder.cube(None, *cube.shape[1:], {}) as writer:
            writer.write(0, cube)


class Cubes(Application):
    """Pictures → cubes → files."""

    def __init__(self, pictures: str, cubes: str, artifacts: str = "build/ccnet") -> None:
        super().__init__()
        self._paths, self._cubes, self._artifacts = frame_paths([Path(pictures)]), Path(cubes), artifacts

    def compose(self) -> None:
        """Connect the operators."""
        source = PicturesOp(self, CountCondition(self, len(self._paths)), name="pictures", paths=self._paths)
        cubes = CCNetOp(self, name="ccnet", artifacts=self._artifacts)
        self.add_flow(source, cubes, {("frame", "frame")})
        self.add_flow(cubes, CubesOp(self, name="cubes", folder=self._cubes), {("cube", "cube")})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python examples/holoscan/cubes.py PICTURES CUBES [ARTIFACTS]")
    Cubes(*sys.argv[1:]).run()
