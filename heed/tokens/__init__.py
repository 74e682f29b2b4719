"""Rows as ids: encoded, kept, put in an order, laid into micro-batches, shown. (Needs torch.)"""
