"""Runs as they go on: what their folders tell, over HTTP, on one page."""
