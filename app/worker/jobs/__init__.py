"""The asyncio side of a worker: chooses and claims jobs, keeps their leases, and runs each to its stored files."""
