"""Teachers that score one document at a time."""
