"""What kind of market a series is in."""
