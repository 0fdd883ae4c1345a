"""The ensemble's members, each able to fit, predict and export."""
