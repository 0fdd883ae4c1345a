"""The same venue in Bitfinex's words: REST v2 and WebSocket v2 over one engine, one account and one clock."""
