"""Evaluation: defenses against prompt sets on one model, into one comparable table."""
