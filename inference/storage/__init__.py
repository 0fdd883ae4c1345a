"""Tables made from the journal, who reads them, and backups of a home."""
