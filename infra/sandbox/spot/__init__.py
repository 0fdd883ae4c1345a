"""Binance spot before the same venue: an account of assets in the market of the contracts."""
