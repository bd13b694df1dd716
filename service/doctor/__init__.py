"""``xmc-serve doctor``: what a server would find on this machine, what of it is wrong, and what to do.

A check a module. None imports more than Python's own library before it looks, and what a library could do to a process
that imports it (`probes`) happens in another one (`child`): what is broken must not keep itself from being named.
"""
