"""A service, put away at one moment and set up again."""
