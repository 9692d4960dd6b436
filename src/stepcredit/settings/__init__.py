"""Shared by methods, signals and rewards: fields with checks, and registries of names."""
