"""verl: all knowledge of it, and nothing else. `plugin` is what verl loads."""
