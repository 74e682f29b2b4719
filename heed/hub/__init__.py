"""The Hub: what leaves this machine, and how it gets there without a training ever waiting for it."""
