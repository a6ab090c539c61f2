"""Faults on purpose: servers, networks and processes that break, and who judges what is left."""
