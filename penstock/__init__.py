"""Penstock: see, keep, search and replay what goes over your message buses."""
