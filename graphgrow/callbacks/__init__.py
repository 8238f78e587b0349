"""Growing inside the training loops of other libraries; one file each, and what they share."""
