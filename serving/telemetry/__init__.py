"""What happened to requests: logs, traces, metrics."""
