"""Checks of everything that a run needs, made before the first token is sampled."""
