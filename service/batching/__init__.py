"""Queries that wait: a client that bounds them, and the batcher that computes them in company."""
