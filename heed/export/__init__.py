"""A run as a file for other programs, which answer as the run does; whether they do is tried in the same command."""
