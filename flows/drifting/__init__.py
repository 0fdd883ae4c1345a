"""Whether the market, the predictions or the outcomes moved, and whether the champion delivers less than it did."""
