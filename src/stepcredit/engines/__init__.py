"""One package per trainer, which holds all that is known of that trainer; shared code is beside."""
