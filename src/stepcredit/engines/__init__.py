"""One package per trainer, with all code about that trainer; shared code is in this folder."""
