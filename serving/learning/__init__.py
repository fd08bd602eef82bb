"""Outcomes into snapshots, and snapshots into serving."""
