"""DiMint: consumers."""
