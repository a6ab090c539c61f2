"""The file store, in a folder and behind URLs that fsspec knows."""

import os
from pathlib import Path

import pytest

from batchord.ledger.settings import Settings
from batchord.ledger.storage.file_store import (
    FileStore,
    FileStoreUnavailable,
    file_store,
    read_part,
)
from tests.conftest import Deploy
from tests.support.api_server import ApiServer, ended, lines_of, make, request
from tests.support.harness import provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

NAME = "file-" + 24 * "a"
STORES = {
    "a folder": "{folder}/files",
    "a folder's URL": "file://{folder}/files",
    "a file system of fsspec's": "local://{folder}/files",
    "an object store of fsspec's": "memory://batchord",
}
#: A real object store, by hand: `BATCHORD_TEST_FILES=s3://bucket/prefix`, with s3fs installed and
#: FSSPEC_S3_ENDPOINT_URL where moto_server or MinIO listens (docs/serve.md).
if named := os.environ.get("BATCHORD_TEST_FILES"):
    STORES["an object store of fsspec's, by hand"] = named


def _store(name: str, folder: Path) -> FileStore:
    return file_store(Settings(files=STORES[name].format(folder=folder)))


@pytest.mark.parametrize("name", STORES)
def test_a_file_appears_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    store = _store(name, tmp_path)
    store.check()
    new = store.create(NAME)
    new.write(b"one\n")
    new.write(b"two\nthree\n")
    if "fsspec" not in name:
        with pytest.raises(FileNotFoundError):
            store.open(NAME)
    new.commit()
    with store.open(NAME) as file:
        assert file.readlines() == [b"one\n", b"two\n", b"three\n"]
    assert read_part(store, NAME, 4, 3) == b"two"
    with pytest.raises(EOFError):
        read_part(store, NAME, 4, 300)
    store.delete(NAME)
    store.delete(NAME)
    with pytest.raises(FileNotFoundError):
        store.open(NAME)


@pytest.mark.parametrize("name", STORES)
def test_what_is_discarded_leaves_nothing(name: str, tmp_path: Path) -> None:
    store = _store(name, tmp_path)
    new = store.create(NAME)
    new.write(b"x" * 3_000_000)
    new.discard()
    with pytest.raises(FileNotFoundError):
        store.open(NAME)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("bad", ["../keys.toml", "file-1", NAME + "/..", "/etc/passwd", ""])
def test_nothing_but_an_id_is_a_name(name: str, bad: str, tmp_path: Path) -> None:
    store = _store(name, tmp_path)
    for use in (store.create, store.open, store.delete):
        with pytest.raises(ValueError, match="not the id"):
            use(bad)


UNUSABLE = {
    "an unknown scheme": "nothing-knows-this://x",
    "a package that is not installed": "gs://no-package-for-it",
    "nobody listens": "ftp://user:secret@127.0.0.1:1/files",
    "it cannot be written to": "http://127.0.0.1:1/files",
    "the folder above is not there": "local:///there/is/no/such/folder",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_url_that_cannot_be_used_says_so(name: str) -> None:
    store = file_store(Settings(files=UNUSABLE[name]))
    for use in (store.check, lambda: store.create(NAME)):
        with pytest.raises(FileStoreUnavailable, match="BATCHORD_FILES") as caught:
            use()
        assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(FileStoreUnavailable, match="set BATCHORD_FILES"):
        file_store(Settings(files=str(tmp_path / "a file" / "files"))).check()


def test_server_and_workers_share_a_file_system_of_fsspecs(
    deploy: Deploy, provider: OpenAIServer, tmp_path: Path
) -> None:
    deployment = deploy(files=f"local://{tmp_path}/shared", file_inline_bytes=200)
    deployment.start_worker(env={**provider_env(provider), "BATCHORD_CHAINS": ""})
    api = ApiServer(deployment)
    with api.client() as client:
        batch = make(client, [request(0, "long " * 100), request(1)])
        done = ended(client, batch)
        assert len(lines_of(client, done.output_file_id)) == 2
        assert (tmp_path / "shared" / batch.input_file_id).exists()
        assert client.files.content(batch.input_file_id).text.count("\n") == 2
    assert api.files == []
