"""The methods: one file per method."""

from stepcredit._moved import also_callable

also_callable(__name__, "methods")
