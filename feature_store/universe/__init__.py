"""The universe: which symbols could be traded at a moment, from what was known at that moment."""
