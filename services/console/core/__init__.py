"""The console's decisions, pure."""
