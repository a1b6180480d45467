"""The jars of Kafka and ZooKeeper, fetched once per checkout through Maven."""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.foundation import LEFT_OUT

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CACHE = ROOT / ".cache" / "services"
FETCH_S = 300


class Missing(Exception):
    """What this machine lacks for real services, in words."""


def need_jars() -> Path:
    """The folder of the jars. Without Java or Maven the test is skipped with the reason; under CI=true it fails."""
    if LEFT_OUT:
        pytest.skip(LEFT_OUT)
    try:
        return jars()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"under CI=true real services are a must: {missing}")
        pytest.skip(str(missing))


def jars() -> Path:
    """The folder of the jars, fetched if it is not there. Raises Missing."""
    found = _jars()
    if isinstance(found, Missing):
        raise found
    return found


@functools.cache
def _jars() -> Path | Missing:
    if shutil.which("java") is None:
        return Missing("no Java on this machine, so no Kafka and no ZooKeeper (Debian: apt install default-jre-headless)")
    if shutil.which("openssl") is None:
        return Missing("no openssl on this machine, so no certificates for Kafka (Debian: apt install openssl)")
    pom = HERE / "pom.xml"
    folder = CACHE / hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        return Missing("no Maven on this machine, so no Kafka and no ZooKeeper (Debian: apt install maven)")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs at once, one fetches
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                fetched = Path(scratch) / "jars"
                command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, cwd=scratch, check=False)
                except subprocess.TimeoutExpired:
                    return Missing(f"Maven did not fetch the jars within {FETCH_S} s")
                if done.returncode or not any(fetched.glob("kafka_*.jar")):
                    return Missing(f"Maven cannot fetch the jars: {(done.stdout + done.stderr).strip()[-300:]}")
                fetched.rename(folder)
    return folder
