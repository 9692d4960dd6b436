"""Signals that a server scores: process reward models, judges, teachers' log-probs.

Each registers on import of its own module; `httpx`, `anyio`, `tenacity` and `jinja2` come with the
extra `signals`.
"""
