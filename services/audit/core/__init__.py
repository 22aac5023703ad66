"""The chain and what goes into it, pure."""
