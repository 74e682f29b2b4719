"""What a model writes to a prompt: by which engine, shown as it is written, kept when a run is interrupted."""
