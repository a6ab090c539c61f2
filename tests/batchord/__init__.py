"""Tests of the command line and of one-machine mode."""
