"""OpenAI's Files and Batch API over HTTP, in front of your own fleet: `batchord serve`."""
