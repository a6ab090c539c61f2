"""Tables as inputs: rows of data frames, Arrow tables and data sets, as JSON values."""
