"""What makes an edit fit: precision, idle parts, lean layers, recomputation, prediction."""
