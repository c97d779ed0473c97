"""Signals, counted one by one also while a native call runs."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def call_on_stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` once for each SIGINT and SIGTERM that arrives in the block; use it in the main thread.

    Python runs a signal's handler between two bytecodes, so that two signals within one native call run it once. The
    interpreter's wakeup descriptor gets a byte for every signal at once, and a thread calls ``stop`` for each byte.

    Args:
        stop: Function to call, from that thread; it must not raise.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(receiver, stop), daemon=True, name="ccnet-signals")
    with receiver, sender:
        previous_descriptor = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        previous_handlers = {number: signal.signal(number, _ignore) for number in STOP_SIGNALS}
        watcher.start()
        try:
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_descriptor)
            sender.shutdown(socket.SHUT_RDWR)
            watcher.join()


def _watch(receiver: socket.socket, stop: Callable[[], None]) -> None:
    while numbers := receiver.recv(64):
        for number in numbers:
            if number in STOP_SIGNALS:
                stop()


def _ignore(*_: object) -> None:
    """Take the place of Python's handler, which would raise KeyboardInterrupt."""
