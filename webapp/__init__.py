"""DiMint: webapp."""
