"""Alerts: rules over the status tables, raised and cleared as events of the log, told to people."""
