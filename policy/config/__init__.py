"""What may be said of arms and policies."""
