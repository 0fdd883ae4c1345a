"""What reading a venue and trading on it both need."""
