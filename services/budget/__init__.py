"""Budget: the owner of the ledger."""
