"""Tests of `batchord serve`."""
