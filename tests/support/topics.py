"""The topics of logs under test. Programs that tests start import this and not the suites' own modules: they start sooner."""

TOPIC = "t.one"
OTHER = "t.two"
PARTITIONS = 3
