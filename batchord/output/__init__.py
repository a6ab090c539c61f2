"""What a person sees: tables, lines, status, files of results."""
