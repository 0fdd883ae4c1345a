"""Where a position ends; pure."""
