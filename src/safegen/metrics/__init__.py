"""What is measured of pictures: pure functions on flags, scores and features, one file a metric."""

from __future__ import annotations
