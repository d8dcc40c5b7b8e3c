"""A real Prometheus beside a service under load: its queries, its alerts, and pictures of its panels."""
