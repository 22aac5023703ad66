"""Decisions: which rows a message makes, how they are cut into inserts, where to resume, what a reader may ask."""
