"""From approved decision to closed trade."""
