"""Where raw candles come from."""
