"""ONNX Runtime's CPU arena that all sessions with compiled operators share, and how it gives free memory back."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

ONE_NODE = (
    b'\x08\x08\x12\x00:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)
"""An ONNX graph, y = Relu(x), of one float32."""


class SharedArena:
    """An arena that grows by what is asked for. A session's own arena grows by powers of two.

    With a session's own arena ``decode`` at 512 px took 890 bytes a pixel, with this one 820, as most tensors of the
    compiled operators have one size. The unrolled graph took 3250, and 3960 with this one.
    """

    def __init__(self, ort: Any) -> None:
        """Register the arena.

        Args:
            ort: The module onnxruntime.

        Raises:
            Exception: The program around this package has registered another; ONNX Runtime's errors have no common
                base.
        """
        place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(place, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        self.join(options)
        self._session = ort.InferenceSession(ONE_NODE, options, providers=["CPUExecutionProvider"])
        self._numbers = np.zeros((2, 1), np.float32)
        self._binding = self._session.io_binding()
        for bind, name, number in zip(
            (self._binding.bind_input, self._binding.bind_output), "xy", self._numbers, strict=True
        ):
            bind(name, "cpu", 0, np.float32, number.shape, number.ctypes.data)
        self._options = shrinking_run_options(ort)
        self._turn = threading.Lock()

    def join(self, options: Any) -> None:
        """Let the session of these options use the arena."""
        options.add_session_config_entry("session.use_env_allocators", "1")

    def trim(self) -> None:
        """Free what is not used, such as a result that nobody holds any more, by a run whose result is elsewhere.

        The next run would put its small tensors there and take new memory for the large ones: ``decode`` took 100 bytes
        a pixel more from the second run on.
        """
        # Threads must not run one binding at the same time; who comes second has nothing to free
        if self._turn.acquire(blocking=False):
            try:
                self._session.run_with_iobinding(self._binding, self._options)
            finally:
                self._turn.release()


_registration = threading.Lock()


def shared_arena(ort: Any) -> SharedArena | None:
    """Return the arena; None where the program around this package has registered another."""
    with _registration:  # ONNX Runtime takes one arena a process, and functools.cache lets two threads register
        return _register_arena(ort)


@functools.cache
def _register_arena(ort: Any) -> SharedArena | None:
    try:
        return SharedArena(ort)
    except Exception:  # ONNX Runtime's errors have no common base
        return None


def shrinking_run_options(ort: Any) -> Any:
    """Return ONNX Runtime's options of a run that frees the unused parts of its CPU arena at the end."""
    options = ort.RunOptions()
    # Its default, for without it onnxruntime 1.32 throws and catches a C++ exception in every run with options. That
    # ends a process that imported torch, GStreamer (which has a libunwind of its own) and onnxruntime, in this order
    options.add_run_config_entry("gpu_graph_id", "0")
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
