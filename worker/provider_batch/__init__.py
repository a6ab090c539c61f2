"""Provider mode: send parts of a batch to the provider's Batch API and import the answers."""
