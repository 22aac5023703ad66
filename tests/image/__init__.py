"""The image, its list of contents and the compose file: what can be said of them without Docker."""
