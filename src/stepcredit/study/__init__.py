"""The study: methods x signals x seeds through the lab, one store of results, one page."""
