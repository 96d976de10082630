"""The settings of a run, and the file that they are read from.

groups.py -> every setting, in groups
settings.py -> all settings together, checked
file.py -> YAML files, and the flags that override them

May import `errors`; of `app`, `store`.
"""
