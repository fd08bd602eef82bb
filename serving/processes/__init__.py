"""Which processes make up a service, and what they are started with."""
