"""Every byte class of a bundle taken apart by our own checks, before any library that could be hurt by it."""
