"""Scratch memory that execution contexts share: engines need it only while they run."""

from __future__ import annotations

from .memory import DeviceMemory
from .streams import Stream


class Scratch:
    """A block of a GPU's memory for execution contexts of which only one runs at a time; it grows, ``free`` empties it.

    Its last user frees it, so that none of them has to own it.
    """

    def __init__(self) -> None:
        self._users = 0
        self._block: DeviceMemory | None = None

    @property
    def address(self) -> int:
        """Address of the block, 0 if there is none. It changes when the block grows."""
        return self._block.address if self._block else 0

    @property
    def nbytes(self) -> int:
        """Size of the block, bytes."""
        return self._block.nbytes if self._block else 0

    def acquire(self) -> None:
        """Add a user, which calls ``release`` once."""
        self._users += 1

    def release(self, stream: Stream) -> None:
        """Remove a user; the last one frees the block, after the stream's work."""
        self._users -= 1
        if not self._users:
            self.free(stream)

    def reserve(self, nbytes: int, stream: Stream) -> int:
        """Make the block large enough for a user.

        Args:
            nbytes: Bytes that the user needs.
            stream: Stream of the user, and of the work that may still use the block.

        Returns:
            The address of the block.

        Raises:
            OutOfMemoryError: The GPU has too little memory; the block is empty then.
        """
        if nbytes > self.nbytes:
            self.free(stream)
            self._block = DeviceMemory(stream.device, nbytes)
        return self.address

    def free(self, stream: Stream) -> None:
        """Empty the block after the stream's work, so that a smaller one can be reserved."""
        block, self._block = self._block, None
        if block:
            stream.synchronize()
            block.close()
