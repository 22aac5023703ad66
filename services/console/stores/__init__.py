"""The world outside the console: CONFIG, the ledger's owner, ClickHouse."""
