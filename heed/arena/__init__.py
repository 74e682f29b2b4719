"""People and judges compare two answers without knowing whose they are; votes become ratings."""
