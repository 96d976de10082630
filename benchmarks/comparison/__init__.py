"""Measures the service beside other servers, with the same models and images: what `make bench` runs.

workloads.py, models.py, images.py -> what is measured
environments.py, servers.py -> installs the peers, starts them
drivers.py -> wrk, and readers of what it prints
ceiling.py -> what the machine could do without HTTP
machine.py -> which machine it was
results.py, report.py, plots.py -> the table and the plots
"""
