"""How the lab's models were trained: one file a model, all of it seeded and resumable."""
