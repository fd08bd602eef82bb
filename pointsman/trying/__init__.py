"""Policies at work on recorded outcomes."""
