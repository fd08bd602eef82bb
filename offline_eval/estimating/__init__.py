"""What a target policy would have earned on a log."""
