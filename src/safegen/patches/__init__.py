"""What an edit or an erasure leaves: a small file of changed weights, and its other forms."""
