"""The models that serve: loaded, proven, switched and unloaded.

registry.py -> hands out the models, and replaces them while they serve
deployment.py -> a model that was asked for, and the version that serves for it
memory_budget.py -> which models are unloaded to make room for another
disk_access.py -> reads the disk with a time limit
loader.py -> loads and proves one model
served_model.py -> a model that may answer requests
announcement.py -> tells log and metrics which model serves
store_watcher.py -> follows the store and the other workers
requested_changes.py -> what was loaded and unloaded at run time, shared by the workers

May import `telemetry`, `inference` and everything below them.
"""
