"""Tables out: the rows of a batch's results, and the files that hold them."""
