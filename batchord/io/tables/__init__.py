"""Files of inputs, row by row: CSV, JSON, text, Parquet and Arrow."""
