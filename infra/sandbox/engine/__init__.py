"""The pure matching engine: no clock, no sockets, no files."""
