"""Bayesian linear regression, arms x components, with a prior that the arms share."""
