"""Signals computed by a program: checked sums, gold hops, shared prefixes, any function."""
