"""Batches: creation, validation, and the batch object."""
