"""The models that serve: loaded, proven, switched, unloaded.

registry.py -> hands out the models, and replaces them while they serve
deployment.py -> a model that was asked for, and what serves for it
loader.py -> loads and proves one model
served_model.py -> a model that may answer requests
store_watcher.py -> follows the store and the other workers
requested_changes.py -> what was loaded and unloaded at run time, shared by the workers
memory_budget.py -> which models make room for another

May import `telemetry`, `inference` and everything below them.
"""
