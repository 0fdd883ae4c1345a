"""The lease that makes one process the only one that trades an account."""
