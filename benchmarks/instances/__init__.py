"""Which instance takes the next call: /route beside random and round robin."""
