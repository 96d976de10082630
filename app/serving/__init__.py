"""The state of the service: whether it is ready, how much may be inside, whether inference is alive.

service.py -> the parts that requests share, and readiness
lifecycle.py -> from start to stop
admission.py -> how many images and bytes may be inside
watchdog.py -> notices when inference is stuck
gauges.py -> what is looked at once a second
worker_count.py -> how many worker processes are worth it

May import `models` and everything below it.
"""
