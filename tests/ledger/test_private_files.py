"""Files of the embedded server: for its user alone, whatever the folder's mode was."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from batchord.ledger.core.private_files import open_private
from batchord.local.server import EmbeddedServer, ServerError
from tests.support.harness import connect

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


def _a_link(home: Path) -> None:
    (home.parent / "elsewhere").mkdir()
    home.symlink_to(home.parent / "elsewhere")


def _a_file(home: Path) -> None:
    home.touch()


def _anothers(home: Path) -> None:
    home.mkdir()
    os.chown(home, 12345, 12345)


def _anothers_file(home: Path) -> None:
    home.mkdir()
    (home / "appendonly.aof").touch()
    os.chown(home / "appendonly.aof", 12345, 12345)


@pytest.mark.parametrize("make", [_a_link, _a_file, _anothers, _anothers_file])
def test_a_home_that_is_not_ours_is_refused_with_the_cure(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    if make in (_anothers, _anothers_file) and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    make(tmp_path / "home")
    with pytest.raises(ServerError, match="set BATCHORD_HOME to") as caught:
        EmbeddedServer(tmp_path / "home").start()
    assert "\n" not in str(caught.value)


def test_a_log_is_private_also_if_it_was_not(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("a line\n")
    log.chmod(0o644)
    with open_private(log) as file:
        file.write(b"another\n")
    assert log.read_text() == "a line\nanother\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(log)
    with pytest.raises(OSError, match="link"):
        open_private(tmp_path / "link")
