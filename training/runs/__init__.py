"""A run on disk, and what a run shows while it works.

run_folder.py -> the folder of a run, and its files
versions.py -> the versions of the libraries
progress.py -> bars and lines on the terminal
step_log.py -> the log of every step
checkpoint.py -> the files from which a run goes on, and its logs
tracking.py -> the record of a run in MLflow

May import `config` and `errors`; of `app`, `store`.
"""
