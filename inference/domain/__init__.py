"""Frozen values the whole worker speaks in; standard library only."""
