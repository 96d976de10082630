"""Tuning: the search for good settings.

search_space.py -> which settings are tried, and between which bounds
study_record.py -> what a study was begun with, so that it goes on with the same
study.py -> the trials, in one process or several

May import `fitting` and everything below it.
"""
