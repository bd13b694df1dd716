"""What is watched of a service that runs: objectives, rules and alerts for Prometheus, a dashboard for Grafana.

No server imports this package. Rules and panels are data and need nothing; only who writes the files anew
(``python -m service.monitoring``) needs the extra `monitoring`. They stand beside `service.metrics` because they are
made of its series: a series that changes its name takes its rules along.
"""
