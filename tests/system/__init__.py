"""Tests of all parts together, of the docs and the examples."""
