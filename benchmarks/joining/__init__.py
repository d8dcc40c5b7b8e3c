"""Two versions of the service under the same load of mixed requests."""
