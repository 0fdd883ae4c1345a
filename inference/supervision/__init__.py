"""What the worker says of its own health: status file, service notifications, model reloads."""
