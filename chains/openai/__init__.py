"""The edge to the provider: the SDK's client, its errors, and what calls cost."""
