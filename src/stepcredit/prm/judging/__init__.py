"""How well step scores agree with step labels: figures, files and plots."""
