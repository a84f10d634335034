"""Results of an evaluation: records, their store, and the cells of the table."""
