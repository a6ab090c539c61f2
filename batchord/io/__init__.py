"""Read and write files and pipes: JSON lines, OpenAI's batch files."""
