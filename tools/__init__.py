"""Scripts for those who work on graphgrow; a package, so that they can import from each other."""
