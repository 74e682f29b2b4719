"""A run folder over time: where it starts, its checkpoints and state, what each step learned from, what it left."""
