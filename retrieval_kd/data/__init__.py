"""Collections, runs and judgments: read, checked, and looked up by ID. Nothing here ranks."""
