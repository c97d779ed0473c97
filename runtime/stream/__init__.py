"""Streams of frames: sources, queue, pipeline, sinks and the ledger of all frames."""
