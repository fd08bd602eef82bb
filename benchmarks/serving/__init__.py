"""What a running service costs, and what it bears."""
