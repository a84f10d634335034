"""Drawn world: objects, backgrounds, scenes, and their weathering."""
