"""What operators see: logs, metrics, traces.

logs.py -> log lines for people, or JSON
metrics.py -> counters and histograms of requests, images and models
process_metrics.py -> memory and CPU time of the process
tracing.py -> OpenTelemetry traces, where they are asked for

May import `inference`, `settings` and everything below them.
"""
