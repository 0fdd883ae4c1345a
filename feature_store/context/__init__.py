"""What was known about markets besides candles, and when: capitalisation, dominance, and what people wrote."""
