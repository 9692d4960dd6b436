"""Serving reward models, teachers and judges with vLLM: the command, its start, and a check."""
