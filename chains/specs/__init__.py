"""Chains that travel as data: one prompt or one embedding, which every worker can build."""
