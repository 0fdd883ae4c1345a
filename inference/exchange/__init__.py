"""The venue as the worker trades it: ccxt on one side, domain values on the other."""
