"""Tests of submitting and reading."""
