"""Rows as ids: encoded, kept, ordered, put into micro-batches, shown. (Needs torch.)"""
