"""The rules that are shipped for Prometheus: alerts, and the names of other conventions."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dimint.webapp.metric_families import FAMILIES

FOLDER = Path(__file__).parents[3] / "deploy" / "prometheus"
RULES, OTEL = FOLDER / "dimint.rules.yml", FOLDER / "dimint.otel.rules.yml"
NAMES = {family.name for family in FAMILIES} | {"dimint_build_info"}


def test_rules_use_metrics_that_exist() -> None:
    """A renamed metric would silence a rule without a word."""
    used = set(re.findall(r"\bdimint_[a-z0-9_]+", RULES.read_text()))
    assert {"dimint_gpu_xid_errors_total", "dimint_user_gpu_seconds_total", "dimint_consumer_lag_events"} <= used
    assert used <= NAMES
    aliased = set(re.findall(r"\bdimint_gpu_[a-z0-9_]+", OTEL.read_text()))
    assert {"dimint_gpu_utilization_ratio", "dimint_gpu_memory_used_bytes", "dimint_gpu_energy_joules_total"} <= aliased <= NAMES


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

ALIASED = """
rule_files: [RULES]
tests:
  - interval: 1m
    input_series:
      - {series: 'dimint_gpu_utilization_ratio{host="a",gpu="0",uuid="G"}', values: '0.5'}
      - {series: 'dimint_gpu_encoder_utilization_ratio{host="a",gpu="0",uuid="G"}', values: '0.1'}
      - {series: 'dimint_gpu_memory_used_bytes{host="a",gpu="0",uuid="G"}', values: '20'}
      - {series: 'dimint_gpu_memory_total_bytes{host="a",gpu="0",uuid="G"}', values: '80'}
      - {series: 'dimint_gpu_power_watts{host="a",gpu="0",uuid="G",kind="average"}', values: '300'}
      - {series: 'dimint_gpu_power_watts{host="a",gpu="0",uuid="G",kind="instant"}', values: '310'}
      - {series: 'dimint_gpu_ecc_errors_total{host="a",gpu="0",uuid="G",type="uncorrected",scope="volatile"}', values: '2'}
    promql_expr_test:
      - expr: sum by (__name__, host_name, hw_id, hw_type, hw_gpu_task, error_type) ({__name__=~"hw_.+"})
        eval_time: 0m
        exp_samples:
          - {labels: 'hw_gpu_utilization_ratio{host_name="a", hw_id="G", hw_type="gpu", hw_gpu_task="general"}', value: 0.5}
          - {labels: 'hw_gpu_utilization_ratio{host_name="a", hw_id="G", hw_type="gpu", hw_gpu_task="encoder"}', value: 0.1}
          - {labels: 'hw_gpu_memory_usage_bytes{host_name="a", hw_id="G", hw_type="gpu"}', value: 20}
          - {labels: 'hw_gpu_memory_limit_bytes{host_name="a", hw_id="G", hw_type="gpu"}', value: 80}
          - {labels: 'hw_gpu_memory_utilization_ratio{host_name="a", hw_id="G", hw_type="gpu"}', value: 0.25}
          - {labels: 'hw_power_watts{host_name="a", hw_id="G", hw_type="gpu"}', value: 310}
          - {labels: 'hw_errors_total{host_name="a", hw_id="G", hw_type="gpu", error_type="uncorrected"}', value: 2}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine (Debian: apt install prometheus)")
def test_gpus_have_the_names_of_opentelemetry(tmp_path: Path) -> None:
    """Each with its id and host; memory in use is no share of the controller's time; of two powers one."""
    path = tmp_path / "tests.yml"
    path.write_text(ALIASED.replace("RULES", str(OTEL)))
    found = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


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
    found = subprocess.run(["promtool", "check", "rules", RULES, OTEL], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr
