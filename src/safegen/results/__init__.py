"""What an evaluation measured: its records, their store, and the cells of the table."""
