"""Output for people: tables, lines, status, files of results."""
