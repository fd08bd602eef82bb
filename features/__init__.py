"""What we know of a query before deciding. Knows no arm, no policy, no Redis."""
