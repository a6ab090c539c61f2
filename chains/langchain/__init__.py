"""Inspection and serialization of LangChain's objects; does not import LangChain by itself."""
