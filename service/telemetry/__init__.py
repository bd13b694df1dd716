"""What is told of requests once they are answered: log lines, traces, predictions."""
