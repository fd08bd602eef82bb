"""What a service shows of itself: log lines and figures."""
