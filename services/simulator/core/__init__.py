"""What the simulator decides: plain functions over plain values."""
