"""Training on machines whose disk goes with the job."""
