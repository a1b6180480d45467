"""`dimint top`: the pages in a terminal, live, with keys."""
