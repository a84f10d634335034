"""A page on this machine: draw with and without defenses side by side, and browse a run."""
