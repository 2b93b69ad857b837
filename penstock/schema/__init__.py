"""What the payloads of a collection look like, and their columns. Pure."""
