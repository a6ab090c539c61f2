"""The record and the wire: what producers and workers share. The ledger is the only truth."""
