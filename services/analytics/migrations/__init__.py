"""Numbered SQL files, applied in order and once each; see stores/migrations.py. `schemas/clickhouse` is made from them."""
