"""From what is expected to a probability per arm."""
