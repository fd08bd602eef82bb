"""What may be chosen: arms, and a request's constraints on them."""
