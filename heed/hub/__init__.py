"""The Hub: what leaves this machine, and how it gets there without training ever waiting for it."""
