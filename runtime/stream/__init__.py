"""Streams: sources, queue, reconstruction, sinks and the ledger of frames."""
