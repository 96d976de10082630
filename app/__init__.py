"""The image classification service: its HTTP server, its command line, and all between them and the model store.

__main__.py -> the command line: parses options and runs a command
server/, commands/ -> sockets, connections and workers; the other commands
main.py -> assembles the application
api/ -> HTTP as clients see it
serving/ -> the state of the service
models/ -> the models that serve
telemetry/ -> logs, metrics, traces
inference/ -> an image's way to probabilities
settings.py -> every setting
images/, store/ -> bytes to pixels; what lies in the model store
errors.py, system/ -> the exceptions; the machine

Each line may import from the lines below it. `app` never imports `training`.
"""
