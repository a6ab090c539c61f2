"""Tests of what is recorded in Redis."""
