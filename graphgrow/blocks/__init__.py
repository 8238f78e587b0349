"""What passes insert: blocks of layers that compute nothing new at the start."""
