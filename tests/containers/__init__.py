"""The image and the compose file on a real Docker: `make image-test`."""
