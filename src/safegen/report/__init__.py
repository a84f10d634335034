"""Reports of a run: summary, HTML page, model card and picture grid."""

from __future__ import annotations
