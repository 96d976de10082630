"""The commands that look at what training has made; `training/__main__.py` has the others.

analysis.py -> evaluate, report, export
visualize.py -> pictures of what a network has learned

May import every other package of `training` but `run`; only `__main__` imports it.
"""
