"""What `make faults` does."""
