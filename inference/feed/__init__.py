"""Closed candles in order, each once: WebSocket first, REST where it fails."""
