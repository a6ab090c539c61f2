"""Keep to a provider's limits: who counts, the admission queue, adaptive concurrency."""
