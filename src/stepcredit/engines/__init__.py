"""One package a trainer: all knowledge of it, and nothing else. What they share lies beside."""
