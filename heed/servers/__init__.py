"""Where a server is, whether that is this machine, and how it is asked."""
