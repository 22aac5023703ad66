"""The decisions of the commands: plain functions over plain values."""
