"""Decide and learn. No I/O, no clock, no global randomness."""
