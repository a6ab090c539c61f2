"""Files: uploads, lists, contents; output and error files are views of the ledger."""
