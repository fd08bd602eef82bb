"""Other programs' logs, in and out."""
