"""Tests of worker processes, whatever happens to them."""
