"""Values, ids and names that every part of the ledger shares; nothing here asks Redis."""
