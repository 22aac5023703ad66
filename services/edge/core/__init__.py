"""What the edge decides: pure functions over plain values, in the order a request meets them.

operations → door → facts → policy → (refusals | formats) → meter → lifecycle.
"""
