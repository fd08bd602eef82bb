"""Bytes of a body -> checked records. Knows no HTTP, no event loop and no policy."""
