"""The report of a work directory: what testing records for it, what is read, and the page."""
