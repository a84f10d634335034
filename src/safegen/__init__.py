"""safegen hardens text-to-image models from the inside and shows that it held."""
