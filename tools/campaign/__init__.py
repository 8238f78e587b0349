"""The property campaign: random models, their mutations alone and in chains, and what came out, as lines of JSON."""
