"""Writing a grown model as a checkpoint of the library that its base came from."""
