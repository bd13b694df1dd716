"""``xmc-serve plan``: what a service of so many labels and queries a second will need, before any of it exists."""
