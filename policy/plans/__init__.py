"""What to do with several arms for one query: fallback, hedge, race, cascade. Calls no model."""
