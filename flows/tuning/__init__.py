"""Search for better settings of a training: what may vary, how a choice is scored, and where trials are kept."""
