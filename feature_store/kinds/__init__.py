"""Market data that are not candles of trades, each kind with what its columns mean and when they could be known."""
