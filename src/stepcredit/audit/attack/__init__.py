"""Attacks on a signal: edited responses, and what each edit earns."""
