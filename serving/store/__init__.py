"""Everything that Redis holds. Nothing else talks to it."""
