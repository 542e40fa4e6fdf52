"""One interface for every fusion method, one file per method, a registry."""
