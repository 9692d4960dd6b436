"""Training a process reward model on step-labelled rows, and judging any signal on them."""
