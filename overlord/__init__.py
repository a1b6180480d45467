"""DiMint: overlord."""
