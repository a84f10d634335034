"""Text-to-image pipelines as safegen uses them: loading, anatomy, targets, sampling."""
