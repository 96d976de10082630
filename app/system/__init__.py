"""What surrounds the service: cores, the kernel, memory that worker processes share, variables, origins of pages.

cores.py -> counts the cores that this process may use
worker_board.py -> holds what the workers of a service tell each other, in shared memory
memory.py -> how much memory this process may use
environment.py -> the environment variables that hold settings
origins.py -> web origins as browsers write them
kernel.py -> lowers thread priorities, returns freed memory
descriptors.py -> how many connections the limit on open files leaves room for

Imports nothing of `app`.
"""
