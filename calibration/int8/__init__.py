"""INT8: histograms of tensors, graphs that quantise and dequantise (Q/DQ), and the search for tolerant layers."""
