"""The machine: cores, the kernel, memory that worker processes share.

cores.py -> counts the cores that this process may use
worker_board.py -> holds what the workers of a service tell each other, in shared memory
kernel.py -> lowers thread priorities, returns freed memory, raises the limit on open files

Imports nothing of `app`.
"""
