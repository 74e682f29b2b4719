"""How fast Heed trains, next to other tools on the same rows, weights and dtype. Measures; asserts nothing."""
