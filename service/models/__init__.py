"""Loaded models: which there are, the processes that compute for them, and what both sides say."""
