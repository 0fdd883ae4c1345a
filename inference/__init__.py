"""Inference: candle in, order out."""
