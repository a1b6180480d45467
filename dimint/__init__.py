"""DiMint: an event-sourced key-value store and GPU/CPU host monitor on a message bus."""

__version__ = "0.1.0"
