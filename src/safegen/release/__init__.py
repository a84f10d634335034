"""Release: a decision on a model under a policy, and a signed statement that others can check."""
