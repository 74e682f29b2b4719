"""A template turns messages into ids, for training, generation and serving alike; a contract says which template."""
