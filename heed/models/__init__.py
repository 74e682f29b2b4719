"""A model is loaded, adapted, kept within memory, made faster, and asked how likely a text is. (Needs torch.)"""
