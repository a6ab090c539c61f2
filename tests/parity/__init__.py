"""Batchord beside LangChain: what is the same, and what differs with which reason."""
