"""Measurements of a server from outside, and of an engine alone."""
