"""What was known about the market, and when: candles, features, venues to read from."""
