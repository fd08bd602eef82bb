"""What may be wrong with a service, each in one line with what to do about it."""
