"""The stages of a method, as pure functions: what the author of a method imports."""
