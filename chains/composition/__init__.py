"""Compose steps into chains: what every chain can do, sequences, branches, functions, adapters."""
