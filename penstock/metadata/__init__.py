"""Collections, tokens, destinations, replays and leases: what Penstock knows about itself."""
