"""Features of your own, beside the 49: declared once, computed alike in batch and live, checked with one command."""
