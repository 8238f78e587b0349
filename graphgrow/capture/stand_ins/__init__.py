"""What a forward meets while it is recorded in the place of tensors, and of calls of Python's, torch's and its own."""
