"""What a submission can reach in each sandbox, and hostile submissions: they harm their own tasks at most."""

from __future__ import annotations

import os
import socket
import textwrap
from pathlib import Path
from typing import Any, Literal

import pytest
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle, write_meta_album

from ingestion.access import PACKAGE_ROOT, accessible
from ingestion.confinement import is_offline, landlock_abi
from ingestion.errors import InputError
from ingestion.landlocked import SCOPES_VERSION
from ingestion.sandbox import choose_sandbox
from ingestion.seccomp import seccomp_trouble

Sandbox = Literal["bubblewrap", "landlock"]


def opens_none_of(*places: str, within: str = "Path()", more: str = "[]") -> str:
    """A method body that fails where it can read one of the files, or else answers as it should."""
    search = f"""
        for place in [*{places!r}, *{more}]:
            try:
                content = ({within} / place).read_bytes()
            except OSError:
                continue
            assert not content, f"could read {{place}}"
        return self.nearest(query_set)
    """
    return textwrap.dedent(search).strip()


@pytest.mark.medium
def test_a_sandbox_hides_the_data(runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox) -> None:
    labels = runner.dataset / "labels.csv"
    (runner.output.parent / "outside").mkdir()
    attempt = f"""
        for place, mode in (({str(labels)!r}, "r"), ({str(runner.output.parent / "outside" / "x")!r}, "w")):
            try:
                open(place, mode)
            except OSError:
                continue
            raise AssertionError(f"could open {{place}}")
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=attempt), sandbox=sandbox)
    assert not result.failures
    assert runner.accuracy(1) > 0.7


@pytest.mark.medium
def test_data_within_the_bundle_is_hidden(runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox) -> None:
    bundle = make_bundle(predict=opens_none_of("SET/labels.csv", within="Path(__file__).parent"))
    runner.dataset = runner.dataset.rename(bundle / "SET")
    result = runner(bundle, sandbox=sandbox, test_tasks_per_dataset=1)
    assert not result.failures, result.failures
    runner.dataset = write_meta_album(bundle / "bare", [9] * 8)
    (runner.dataset / "model.py").write_text((bundle / "model.py").read_text())
    with pytest.raises(InputError, match="needs to read this folder"):
        runner(runner.dataset, sandbox=sandbox)


@pytest.mark.medium
def test_data_and_truth_are_hidden_within_folders_that_are_opened_as_a_whole(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `/opt`: the checkout, the dataset, the cache, the output, and what other runs left beside it."""
    opened = tmp_path / "opened"
    (opened / "module_beside").mkdir(parents=True)
    (opened / "module_beside" / "__init__.py").write_text("ANSWER = 42")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(opened), str(PACKAGE_ROOT.parent)]))
    runner.dataset = runner.dataset.rename(opened / "SET")
    runner.output = opened / "results" / "now"
    earlier = opened / "results" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "truth.json").write_text("[]")
    demo = next((PACKAGE_ROOT / "examples" / "demo").rglob("*.jpg"))
    places = [runner.dataset / "labels.csv", runner.output / "truth.json", earlier / "truth.json", demo]
    search = "import module_beside\nassert module_beside.ANSWER == 42\n"
    search += opens_none_of(*map(str, places), more=f"Path({str(opened / 'cache')!r}).rglob('*.npy')")
    result = runner(
        make_bundle(predict=search), sandbox=sandbox, cache_dir=opened / "cache", test_tasks_per_dataset=1
    )
    assert not result.failures, result.failures
    assert runner.accuracy(1) > 0.7
    assert all(place.exists() for place in places)
    assert list((opened / "cache").rglob("*.npy"))


def test_the_output_may_not_lie_in_a_system_folder(tmp_path: Path) -> None:
    folders = (Path("/usr"), Path("/opt"))
    scratch = tmp_path / "scratch"
    with pytest.raises(InputError, match="system folder /usr"):
        accessible(folders, (), scratch, private=(), output=Path("/usr/local/out"))
    access = accessible(folders, (), scratch, private=(), output=Path("/opt/work/runs/out"))
    assert Path("/opt/work") in access.hidden


@pytest.mark.medium
@pytest.mark.parametrize("opened", [False, True])
def test_the_token_of_hugging_face_is_hidden_and_its_files_are_not(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    opened: bool,
) -> None:  # fmt: skip
    home = tmp_path / "opened" / "hf"
    (home / "hub" / "models--weights").mkdir(parents=True)
    (home / "hub" / "models--weights" / "file").write_text("weights")
    for name in ("token", "stored_tokens"):
        (home / name).write_text("hf_secret")
    monkeypatch.setenv("HF_HOME", str(home))
    if opened:
        monkeypatch.setenv("PYTHONPATH", str(home.parent))
    read = """
        home = Path(os.environ["HF_HOME"])
        assert (home / "hub" / "models--weights" / "file").read_text() == "weights"
        assert not Path(os.environ["HF_TOKEN_PATH"]).exists()
    """
    read = textwrap.dedent(read) + opens_none_of(str(home / "token"), str(home / "stored_tokens"))
    result = runner(make_bundle(predict=read), sandbox=sandbox, test_tasks_per_dataset=1)
    assert not result.failures, result.failures


@pytest.mark.medium
def test_a_submission_that_shortens_its_images_harms_its_own_task_at_most(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox
) -> None:
    """It shortens every file that it holds open, by descriptor and by name, and writes to it."""
    shorten = """
        tried = 0
        for n in map(int, os.listdir("/proc/self/fd")):
            place = f"/proc/self/fd/{n}"
            if n < 3 or not os.path.exists(place) or "memfd" not in os.readlink(place): continue
            tried += 1
            for attack in (lambda: os.ftruncate(n, 0), lambda: os.truncate(place, 0),
                           lambda: open(place, "r+b", 0).write(b"zero")):
                try: attack()
                except OSError: continue
                print("it worked")
        assert tried, "found no images"
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=shorten), sandbox=sandbox)
    assert not result.failures
    assert "it worked" not in runner.texts("line")
    assert all(runner.accuracy(task) > 0.7 for task in range(1, TASKS + 1))


@pytest.mark.medium
def test_a_submission_cannot_write_to_the_cache_of_images(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox, tmp_path: Path
) -> None:
    """In a cross-domain run whole datasets are shared. It tries to write to what it holds open or has mapped."""
    write_meta_album(runner.dataset.parent / "OTHER", [8] * 8)
    runner.dataset = runner.dataset.parent
    attack = """
        images = meta_train_generator.image_sets[0].images
        assert images.any()
        places = {f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd") if int(n) > 2}
        places |= {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if ".npy" in line}
        for place in places:
            if not os.path.isfile(place): continue
            print("tried", os.readlink(place) if "/fd/" in place else place)
            for attack in (lambda: os.chmod(place, 0o777), lambda: os.truncate(place, 1),
                           lambda: open(place, "r+b", 0).write(b"zero"), lambda: os.unlink(place)):
                try: attack()
                except OSError: continue
                if attack.__code__.co_names[-1] != "chmod": print("it worked")
        return MyLearner()
    """
    cache = tmp_path / "own-cache"
    settings: dict[str, Any] = {
        "sandbox": sandbox,
        "cache_dir": cache,
        "protocol": "cross-domain",
        "test_tasks_per_dataset": 1,
    }
    before = runner(make_bundle(), **settings, overwrite=True)
    files = {file: file.read_bytes() for file in cache.rglob("*.npy")}
    assert len(files) == 2 and not before.failures
    result = runner(make_bundle(meta_fit=attack, name="hostile"), **settings, overwrite=True)
    assert not result.failures, result.failures
    assert ".npy" in runner.texts("line")
    assert "it worked" not in runner.texts("line")
    assert {file: file.read_bytes() for file in cache.rglob("*.npy")} == files
    assert not runner(make_bundle(name="later"), **settings, overwrite=True).failures
    assert "were changed" not in runner.texts("note")


@pytest.mark.medium
def test_a_submission_cannot_signal_other_processes(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox
) -> None:
    if sandbox == "landlock" and landlock_abi() < SCOPES_VERSION:
        pytest.skip("this version of Landlock does not look at signals")
    signal = f"""
        for pid in {{os.getppid(), {os.getpid()}}} - {{1}}:
            try: os.kill(pid, 0)
            except OSError: continue
            raise AssertionError(f"could signal {{pid}}")
        if (child := os.fork()) == 0: time.sleep(60)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=signal), sandbox=sandbox, test_tasks_per_dataset=1)
    assert not result.failures, result.failures


@pytest.mark.slow
def test_memory_that_no_process_has_mapped_counts_too(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox
) -> None:
    """Half of it in anonymous memory, half in a file of `/dev/shm`, and both only written."""
    hoard = """
        anonymous = os.memfd_create("hoard")
        with open(f"/dev/shm/hoard-{os.getpid()}", "wb") as file:
            for _ in range(500):
                os.write(anonymous, bytes(2**20))
                file.write(bytes(2**20))
            file.flush()
            time.sleep(60)
    """
    result = runner(
        make_bundle(predict=hoard),
        sandbox=sandbox,
        memory_budget_bytes=1_200_000_000,
        test_tasks_per_dataset=1,
    )
    for left in Path("/dev/shm").glob("hoard-*"):
        left.unlink()
    assert "GB of memory, the budget is 1.20 GB" in result.failures[1]


@pytest.mark.medium
def test_a_sandbox_has_no_network(runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox) -> None:
    """Neither TCP nor UDP, which needs no answer."""
    if not is_offline(sandbox):
        pytest.skip(f"--sandbox {sandbox}: {seccomp_trouble()}")
    connect = """
        try:
            with socket.socket() as client:
                client.settimeout(5)
                connected = client.connect_ex(("127.0.0.1", TCP)) == 0
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.sendto(b"label", ("127.0.0.1", UDP))
        except OSError:
            connected = False
        assert not connected, "reached a server"
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        return self.nearest(query_set)
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(type=socket.SOCK_DGRAM) as heard,
    ):
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(0.1)
        for name, listener in (("TCP", server), ("UDP", heard)):
            connect = connect.replace(name, str(listener.getsockname()[1]))
        bundle = make_bundle(top="import socket", predict=connect)
        assert "reached a server" in runner(bundle, test_tasks_per_dataset=1).failures[1]
        assert heard.recv(9) == b"label"
        result = runner(bundle, test_tasks_per_dataset=1, sandbox=sandbox, overwrite=True)
        with pytest.raises(TimeoutError):
            heard.recv(9)
    assert not result.failures, result.failures


def test_auto_is_a_sandbox_that_is_there(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    if sandbox == "landlock":
        monkeypatch.setattr("ingestion.sandbox._bubblewrap_trouble", lambda: "not here")
    assert choose_sandbox("auto")[0] == sandbox
