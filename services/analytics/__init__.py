"""Analytics writes the ClickHouse tables, alone, and answers ClickHouse's HTTP protocol over the embedded engine."""
