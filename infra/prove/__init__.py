"""Proofs: each bar of the project as a command that prints its figure last and fails where the bar is not held."""
