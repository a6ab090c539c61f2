"""Chains to try Batchord with."""
