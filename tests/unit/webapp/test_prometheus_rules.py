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
    assert {"dimint_gpu_xid_errors_total", "dimint_user_gpu_seconds_total", "dimint_consumer_lag_events"} <= used
    assert used
    assert used <= {family.name for family in FAMILIES} | {"dimint_build_info"}


TESTED = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'dimint_build_info{version="1"}', values: '1x400'}
      - {series: 'dimint_gpu_xid_errors_total{host="a",gpu="0",uuid="G",xid="79"}', values: '0x9 1x400'}
      - {series: 'dimint_gpu_xid_last_timestamp_seconds{host="a",gpu="0",uuid="G",xid="79"}', values: '_x9 600x400'}
      - {series: 'dimint_gpu_xid_last_timestamp_seconds{host="a",gpu="0",uuid="G",xid="13"}', values: '_x9 600x400'}
      - {series: 'dimint_user_gpu_seconds_total{user="ada",host="a",kind="held"}', values: '0+480x400'}
      - {series: 'dimint_user_gpu_seconds_total{user="ada",host="a",kind="active"}', values: '0+6x400'}
      - {series: 'dimint_user_gpu_seconds_total{user="bob",host="a",kind="held"}', values: '0+480x400'}
      - {series: 'dimint_user_gpu_seconds_total{user="bob",host="a",kind="active"}', values: '0+400x400'}
      - {series: 'dimint_consumer_lag_events{partition="0"}', values: '3000x400'}
      - {series: 'dimint_consumer_lag_events{partition="1"}', values: '0x30 3000x400'}
    promql_expr_test:
      - expr: count by (alertname, user, xid) (ALERTS{alertstate="firing"})
        eval_time: 12m
        exp_samples: [{labels: '{alertname="DimintGpuXidCritical", xid="79"}', value: 1}]
      - expr: count by (alertname, user, xid) (ALERTS{alertstate="firing"})
        eval_time: 300m
        exp_samples:
          - {labels: '{alertname="DimintConsumerBehind"}', value: 1}
          - {labels: '{alertname="DimintUserWastesGpus", user="ada"}', value: 1}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine (Debian: apt install prometheus)")
def test_rules_fire_when_they_should(tmp_path: Path) -> None:
    """A critical XID for five minutes, a user who wastes GPUs for hours, tables that stay behind; nothing else."""
    path = tmp_path / "tests.yml"
    path.write_text(TESTED.replace("RULES", str(RULES)))
    found = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine (Debian: apt install prometheus)")
def test_promtool_takes_the_rules() -> None:
    """Prometheus' own check."""
    found = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr
