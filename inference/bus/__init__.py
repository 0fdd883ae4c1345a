"""What happened, told to whoever wants to know: an event bus that follows the journal."""
