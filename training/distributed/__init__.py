"""Training on several machines, by Ray: the one place where it is imported, and only with `xmc-train fit --ray`."""
