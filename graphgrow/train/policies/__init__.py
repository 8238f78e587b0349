"""Growth policies, one a file; the folder is the registry."""
