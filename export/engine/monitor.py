"""Progress and cancellation of a build: TensorRT swallows exceptions that are raised in its callbacks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with a phase's name, its steps done and its steps in all; any exception that it raises cancels the build."""


@contextmanager
def deferred_interrupt(raised: list[BaseException]) -> Iterator[None]:
    """Append Ctrl-C to ``raised``: an exception could strike inside one of TensorRT's callbacks and be lost there."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: raised.append(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def make_monitor(module: Any, progress: Progress | None, raised: list[BaseException]) -> Any:
    """Return TensorRT's progress monitor.

    Args:
        module: TensorRT's Python module.
        progress: Called at each step.
        raised: Receives the exception that ``progress`` raises; the build stops once there is any in it.

    Returns:
        An object of a class derived from the module's own.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return not raised

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, self._steps[phase_name])

        def _report(self, phase: str, done: int) -> None:
            if raised or progress is None:
                return
            try:
                progress(phase, done, self._steps[phase])
            except BaseException as error:  # raised again by build_engine
                raised.append(error)

    return Monitor()
