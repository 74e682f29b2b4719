"""What was asked of which models, and all that follows from their answers."""
