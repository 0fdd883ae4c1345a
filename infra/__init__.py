"""What runs the system: the local exchange, process stack, service units and decisions."""
