"""``python -m safegen``."""

from safegen.cli import main

main()
