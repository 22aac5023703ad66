"""The shell: HTTP in Anthropic's shapes."""
