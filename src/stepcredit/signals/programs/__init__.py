"""Signals computed by a program: checked sums, gold hops, shared prefixes, functions of yours."""
