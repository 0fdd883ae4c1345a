"""Models and decisions driven over stored candles."""
