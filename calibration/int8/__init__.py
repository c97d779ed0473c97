"""INT8: histograms, Q/DQ graphs and the search for layers that tolerate INT8."""
