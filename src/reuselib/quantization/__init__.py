"""Weights on a grid: schemes, rounding, packing, and layers that compute with them."""
