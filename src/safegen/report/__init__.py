"""What a run found, for people: summary, HTML page, model card and picture grid."""

from __future__ import annotations
