"""Roles with named inputs, a vote, a veto and a log: deterministic, and no number that is not computed."""
