"""What testing a detector records for the report."""
