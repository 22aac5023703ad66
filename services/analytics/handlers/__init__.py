"""The shell: logs in, rows out; and ClickHouse's HTTP protocol over the embedded engine."""
