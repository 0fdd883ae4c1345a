"""The shapes, names and codes of the Binance USD-M wire protocol."""
