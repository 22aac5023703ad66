"""The outside world: the tables, through clickhouse-connect, and the embedded engine as readers see it."""
