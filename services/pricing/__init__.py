"""Pricing puts a price on every usage record, once."""
