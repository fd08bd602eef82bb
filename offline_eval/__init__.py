"""What another policy would have earned on a log. Knows no HTTP and no Redis."""
