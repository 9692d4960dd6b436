"""Rows with a label per step: the published formats, read and checked."""
