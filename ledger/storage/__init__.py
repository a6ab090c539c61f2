"""Read and write the ledger in Redis: batches, items and their leases, statistics, events."""
