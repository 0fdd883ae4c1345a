"""Where the rules of a deployment come from."""
