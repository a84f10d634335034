"""A text-to-image pipeline as safegen sees it: loading, anatomy, targets, sampling."""
