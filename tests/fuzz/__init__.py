"""Hostile bytes for everything that reads bytes of others, judged by oracles: not only "it does not crash".

Each target is a function of one byte string that raises when a promise is broken. `python -m tests.fuzz` runs them for
long, `test_fuzz.py` for seconds, and `corpus/` holds what they start from, every case that once broke one included.
"""
