"""Growth of a whole model at once: by factors (`scale`), or into the shapes of a larger sibling (`grow_to`)."""
