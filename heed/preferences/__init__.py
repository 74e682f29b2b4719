"""Which of two answers to one prompt is the better: pairs, what is wrong with them, and what is learned from them."""
