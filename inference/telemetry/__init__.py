"""Events as people read them: log lines and the story behind a decision."""
