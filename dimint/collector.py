"""Python's collector of garbage cycles, in processes with a large heap and thousands of short-lived values without any."""

import gc

__all__ = ["tune_collector"]


def tune_collector(young: int = 50_000) -> None:
    """Collect rarely, and never look again at what is there by now. Once, before the work begins.

    With the hosts of a big fleet in memory a full collection takes as long as a whole answer. `young` is how many values are
    made between two looks at the newest ones: few where cycles may hold large answers.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, 20, 100)
