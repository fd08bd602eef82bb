"""Decisions joined with their outcomes: what offline evaluation reads."""
