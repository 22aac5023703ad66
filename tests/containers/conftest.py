"""Built once for all tests; the compose file runs once for those that use it."""

from tests.containers.docker import base, image, trial

__all__ = ["base", "image", "trial"]
