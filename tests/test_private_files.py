"""What the embedded server writes is for its user alone, whatever the folder's mode was."""

import stat
from pathlib import Path

import pytest

from batchord.server import EmbeddedServer
from tests.harness import connect

pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize("mode", [None, 0o755, 0o777], ids=["new", "readable", "writable"])
def test_every_file_is_0600_in_folders_of_0700(tmp_path: Path, mode: int | None) -> None:
    home = tmp_path / "home"
    if mode is not None:
        home.mkdir()
        home.chmod(mode)
        old = home / "appendonly.aof.old"
        old.touch()
        old.chmod(0o644)
    with EmbeddedServer(home, announce=True) as server:
        redis = connect(server.url)
        redis.set("key", "value")
        redis.close()
        found = {path: stat.S_IMODE(path.stat().st_mode) for path in [home, *home.rglob("*")]}
        kinds = {path: 0o700 if path.is_dir() else 0o600 for path in found if not path.is_socket()}
    assert len(found) > 4
    assert {path: oct(found[path]) for path in kinds} == {p: oct(m) for p, m in kinds.items()}
