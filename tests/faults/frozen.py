"""Preloaded last: what imports have made is no garbage, and a training collects at its start (see conftest.py)."""

import gc

gc.collect()
gc.freeze()
