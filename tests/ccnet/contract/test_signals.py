"""Stop signals: each one counts, also during a native call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ccnet.contract.signals import call_on_stop_signals

STREAM = """
import hashlib, time
import numpy as np
from ccnet.runtime.cli.stream import _run
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.sources.source import SourceSpec

class Source:
    expected, colour = None, ""
    frames = 5
    def read(self):
        self.frames -= 1
        return None if self.frames < 0 else ("", np.zeros((4, 4, 3), np.uint8))
    def close(self): pass

class Reconstructor:
    def encode(self, frame):
        return np.zeros((1, 3), np.float32)
    first = True
    def strips(self, frame, context=None):
        while self.first and len(stream._queue) < 4:
            time.sleep(0.01)
        if self.first:
            print("call begins", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 6_000_000)  # one native call of some seconds, without the GIL
            print("call ends", time.monotonic(), flush=True)
        self.first = False
        yield 0, np.zeros((31, 4, 4), np.float32)

stream = Stream(
    source=SourceSpec("five frames", False, Source), sinks=[], reconstructor=Reconstructor(),
    prepare=lambda pixels: pixels, context=ContextPolicy("every:1"), policy="block", queue_size=5,
)
_run(stream, None)
print(stream.ledger.counts())
"""


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([signal.SIGINT, signal.SIGINT], "1 delivered, 4 dropped"),
        ([signal.SIGINT, signal.SIGTERM], "1 delivered, 4 dropped"),
        ([signal.SIGINT], "5 delivered, 0 dropped"),
    ],
    ids=["twice", "two kinds", "once"],
)
def test_every_signal_during_a_native_call_counts(numbers: list[signal.Signals], words: str) -> None:
    with subprocess.Popen([sys.executable, "-c", STREAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "call begins\n"
        for number in numbers:
            time.sleep(0.1)
            process.send_signal(number)
        sent = time.monotonic()
        out = process.stdout.read()
        assert process.wait(60) == 0
    assert sent < float(out.splitlines()[0].removeprefix("call ends "))  # the signals came while the call ran
    assert words in out


def test_handlers_and_wakeup_descriptor_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    calls: list[int] = []
    with call_on_stop_signals(lambda: calls.append(1)):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert len(calls) == 3  # none is lost at the end
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
