"""Signals that a server scores: process reward models, judges, teachers' log-probs.

Each signal is registered when its module is imported. The extra `signals` installs `httpx`,
`anyio`, `tenacity` and `jinja2`.
"""
