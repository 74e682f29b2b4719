"""A language model as judge of answers: scores from 0 to 100, pairs in both orders, and how far to trust them."""
