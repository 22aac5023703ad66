"""Every subject and message that crosses a process border, one module per owner."""
