"""The Batch API of a provider: its calls, and the format of its files."""
