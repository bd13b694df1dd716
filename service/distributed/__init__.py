"""Serving on several machines, by Ray: the one place where it is imported, and only with `xmc-serve run --ray`."""
