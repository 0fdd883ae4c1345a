"""The 49 features: one definition and one kernel for batch and live."""
