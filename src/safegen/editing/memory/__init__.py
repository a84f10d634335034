"""Memory of an edit: precision, idle parts, lean layers, recomputation, prediction."""
