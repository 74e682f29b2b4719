"""A template turns messages into ids, for training, generation and serving alike; the contract that says which."""
