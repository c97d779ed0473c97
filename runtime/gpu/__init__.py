"""GPUs through the CUDA driver: devices, memory, copies, streams, and what their errors mean."""
