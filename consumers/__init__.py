"""Status consumers: projections of the status topic into tables that the pages read."""
