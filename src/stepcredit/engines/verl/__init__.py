"""The verl engine. verl loads `plugin`, which registers the rest."""
