"""`dimint status`: look at everything (look.py), judge it (report.py), show it (as_text.py)."""
