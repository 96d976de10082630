"""What several benchmarks share.

load.py -> clients, in a closed and in an open loop
damage.py -> damaged images
small_service.py -> a service whose model is never the limit
"""
