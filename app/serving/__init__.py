"""The state of the service: whether it is ready, how much it admits, whether inference works.

worker_count.py -> decides how many worker processes pay, before any starts
service.py -> holds the parts that requests share, and says whether the service is ready
lifecycle.py -> runs the background tasks, from start to stop
admission.py -> bounds the images and bytes that are admitted
watchdog.py -> notices when inference is stuck
gauges.py -> sets the gauges of Prometheus once a second

May import `models` and everything below it.
"""
