"""Faults of the disk, injected into everything that is kept."""
