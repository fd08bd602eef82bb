"""What a service shows of itself: figures."""
