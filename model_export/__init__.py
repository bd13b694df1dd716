"""The bridge: turns a training artifact into a bundle that the service opens."""
