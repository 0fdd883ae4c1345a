"""Model bundles: read, verified, scored, reloaded."""
