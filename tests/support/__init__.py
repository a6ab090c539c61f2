"""Servers, processes and judges, shared by the tests and the chaos suite."""
