"""Patches: small files of changed weights from an edit or eraser, and their other forms."""
