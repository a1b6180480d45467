"""The alerting rules that are shipped for Prometheus."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dimint.webapp.metric_families import FAMILIES

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "dimint.rules.yml"


def test_rules_use_metrics_that_exist() -> None:
    """A renamed metric would silence a rule without a word."""
    used = set(re.findall(r"\bdimint_[a-z0-9_]+", RULES.read_text()))
    assert used
    assert used <= {family.name for family in FAMILIES} | {"dimint_build_info"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine (Debian: apt install prometheus)")
def test_promtool_takes_the_rules() -> None:
    """Prometheus' own check."""
    found = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr
