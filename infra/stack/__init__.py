"""The local stack: which processes make up the system on one machine, and how they start, stop and recover."""
