"""The shell: what arrives on the bus, one owner's loop, and what goes out again."""
