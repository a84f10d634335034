"""Training of the lab's models: one file per model, seeded and resumable."""
