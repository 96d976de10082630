"""The command `bench`: measures a model on this machine, and says what limits it.

measure.py -> the measurements, from decoding to HTTP
rate.py -> how many images a second an engine computes
http_load.py -> a service in a process of its own, and clients that keep it busy
report.py -> the findings as a table, and the conclusions from them
"""
