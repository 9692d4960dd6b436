"""Trains with TRL from one YAML file: `python -m stepcredit.launch --config recipe.yaml`."""
