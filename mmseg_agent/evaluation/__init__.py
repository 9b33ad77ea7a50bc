"""What testing a segmentor records for the report."""
