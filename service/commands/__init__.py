"""The commands of ``xmc-serve``, one a module.

The thread pools of the numerical libraries are sized before those libraries are imported; so a module imports what its
command needs only when it runs.
"""
