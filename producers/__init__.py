"""DiMint: producers."""
