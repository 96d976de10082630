"""TorchServe's three interfaces, each of which it has on a port of its own.

inference.py -> predictions, on the service's own port
management.py -> lists, registers and unregisters models, on `--management-port`
metrics.py -> metrics under TorchServe's names, on `--metrics-port`
"""
