"""What several benchmarks share.

load.py -> an open loop of requests, clients in the background, forms, memory
damage.py -> damaged images
small_service.py -> a service whose model is never the limit
"""
