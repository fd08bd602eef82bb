"""Asking the gate, and what follows from its verdict."""
