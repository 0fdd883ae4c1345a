"""From the ensemble's numbers to signals."""
