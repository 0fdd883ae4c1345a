"""Where prices come from: a synthetic market or recorded candles."""
