"""Signals that hold a language model, and how such a model is loaded and run."""
