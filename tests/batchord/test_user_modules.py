"""A user's own modules are found from the working directory, and none shadows ours."""

import pytest

from tests.support.harness import Deployment

pytestmark = pytest.mark.timeout(60)

CHAINS = """
from batchord.chains import register

register("shout", lambda text: text.upper())
"""


def test_a_worker_imports_a_users_chains_beside_folders_named_like_ours(
    deployment: Deployment,
) -> None:
    (deployment.folder / "mychains.py").write_text(CHAINS)
    for name in ("chains", "ledger", "worker", "producer", "batchord", "celery"):
        (deployment.folder / name).mkdir()
        (deployment.folder / name / "__init__.py").write_text("raise RuntimeError('shadowed')")
    worker = deployment.start_worker(env={"BATCHORD_CHAINS": "mychains"})
    assert deployment.client.submit("shout", ["hey"]).outputs() == ["HEY"]
    assert "shadowed" not in worker.log


def test_a_worker_without_its_chains_does_not_start(deployment: Deployment) -> None:
    worker = deployment.start_worker(env={"BATCHORD_CHAINS": "no_such_module"}, wait=False)
    assert worker.wait() != 0
    assert "no_such_module" in worker.log
    assert deployment.client.chains() == {}
