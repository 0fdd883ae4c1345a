"""SQL of the feature store: one file, one question."""
