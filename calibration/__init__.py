"""Calibration: measure on real frames which tensors FP16 can hold and which layers tolerate INT8."""
