"""From frames of inputs to a judged model bundle; no Prefect, no IO outside the given folder."""
