"""Tuning: the search for good settings.

search_space.py -> which settings are tried, and between which bounds
study.py -> the trials, in one process or several

May import `fitting` and everything below it.
"""
