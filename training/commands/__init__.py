"""The parts of the command line that need room of their own.

analysis.py -> evaluate, report, export
visualize.py -> pictures of a trained network

May import every other package of `training` but `run`; only `__main__` imports it.
"""
