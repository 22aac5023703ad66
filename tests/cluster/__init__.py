"""What only a real API server and a real node can show; `run` needs one, and says so where there is none."""
