"""Data by name: what comes with a package, what is generated from a seed, and what lies in a folder of the user's."""
