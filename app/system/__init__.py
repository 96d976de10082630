"""The machine: cores, the kernel, memory that worker processes share.

cores.py -> how many cores this process may use
kernel.py -> thread priorities, freed memory, the limit on descriptors
worker_board.py -> what the workers of a service tell each other

Imports nothing of `app`.
"""
