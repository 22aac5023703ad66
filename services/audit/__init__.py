"""Audit: the tamper-evident record of every admission, refusal and administrative change."""
