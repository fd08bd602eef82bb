"""A log of any length, valued part by part."""
