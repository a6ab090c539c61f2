"""The steps of chains: prompts, language models, embeddings, retrieval, raw requests."""
