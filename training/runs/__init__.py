"""What a run leaves on disk, and what it shows while it works.

run_folder.py -> the folder of a run, and its files
checkpoint.py -> the files from which a run goes on
step_log.py -> the loss of every step
versions.py -> versions of the libraries
tracking.py -> MLflow
progress.py -> lines and bars in the terminal

May import `config` and `errors`.
"""
