"""What a service shows of itself: log lines, figures, traces."""
