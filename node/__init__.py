"""DiMint: node."""
