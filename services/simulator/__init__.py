"""A provider that is not one: speaks the Messages API, streams, fails and bills on demand."""
