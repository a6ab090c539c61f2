"""Workloads, one module each: `run` gives the raw rows, `tables` the words for them."""
