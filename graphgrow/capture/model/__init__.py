"""The model that is captured: whether it is taken, run as it is and put back, and what a graph must do as it does."""
