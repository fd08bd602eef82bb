"""Vowpal Wabbit behind the value model's protocol: one regressor per component. Explores nothing.

VW estimates what each arm does with a query, `explore` makes a pmf of it, so that propensities
have one home. Nothing here reads a clock, draws, or knows a policy.
"""
