"""The settings of a run, and the file that they are read from.

settings.py -> every setting, checked
file.py -> YAML files, and the flags that override them

May import `errors`; of `app`, `store`.
"""
