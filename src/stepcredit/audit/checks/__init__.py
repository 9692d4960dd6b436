"""The package's checks, one file per theme; importing them registers them."""
