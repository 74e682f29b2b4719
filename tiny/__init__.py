"""The tiny world: facts, the data set about them and a small model that has read them."""
