"""What operators see: logs, metrics, traces.

logs.py -> writes log lines for people, or as JSON
request_log.py -> the id of a request, its count and its line in the access log
metrics.py -> counts requests, images and loads of models, and holds the gauges
metric_files.py -> the files in which workers keep their metrics
process_metrics.py -> reads memory and CPU time of the process, and memory of the GPU
tracing.py -> sends OpenTelemetry traces, where they are asked for

May import `inference`, `settings` and everything below them.
"""
