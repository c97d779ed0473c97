"""The ledger of frames."""

from __future__ import annotations

import pytest

from ccnet.runtime.stream.ledger import FrameLedger


def test_ledger_that_does_not_balance_is_refused() -> None:
    ledger = FrameLedger()
    ledger.arrive(3)
    ledger.deliver(3)
    for wrong in (lambda: ledger.arrive(3), lambda: ledger.deliver(3), lambda: ledger.drop(4)):
        with pytest.raises(ValueError, match="frame"):
            wrong()
    assert str(ledger.counts()) == "1 frames arrived: 1 delivered, 0 dropped by policy, 0 rejected"
