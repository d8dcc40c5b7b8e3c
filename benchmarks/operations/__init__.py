"""A real Prometheus beside a service under load: its queries, its alerts, and images of its panels."""
