"""What all positions together carry; pure."""
