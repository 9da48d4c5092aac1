"""The pool: each job once, whatever happens to its worker, to another job, or to the pool itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.errors import InputError, RunError
from dmu_hw.pool import Done, Job, Local, Record, Slurm, find, records, run
from dmu_hw.pool.jobs import keep, path_of

ONE, TWO = Local(workers=1), Local(workers=2)


@pytest.fixture(autouse=True)
def _toys_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def toy(name: str, **config: Any) -> Job:
    return Job(f"pool_toys:{name}", config)


def squares(count: int, **more: Any) -> list[Job]:
    return [toy("square", x=x, **more) for x in range(count)]


def children(pid: int) -> set[int]:
    """Workers that a process has now."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return {int(line) for line in found.stdout.split()} if found.returncode == 0 else set()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(truth: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


# ---------------------------------------------------------------- results


def test_every_job_has_its_result_and_is_not_run_twice(tmp_path: Path) -> None:
    jobs = squares(7)
    first = list(run([*jobs, *jobs], tmp_path, TWO))
    assert {done.job.config["x"]: done.record.result for done in first} == {x: {"square": x * x} for x in range(7)}
    assert not any(done.kept or done.failed for done in first)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    second = list(run(jobs, tmp_path, TWO))
    assert all(done.kept for done in second)
    assert [done.job.key for done in second] == [job.key for job in jobs]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == stamps
    assert {record.config["x"] for record in records(tmp_path)} == set(range(7))


TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
NUMBER = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_a_record_is_found_again_whatever_the_configuration(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    job = Job("some.module:function", config)
    keep(Record.now(job, {"y": 1}, None, 0.5), folder)
    found = find(job, folder)
    assert found is not None
    assert found.config == config
    assert found.job.key == Job(job.call, dict(reversed(config.items()))).key
    assert found.job.key != Job("some.module:other", config).key


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    jobs = squares(4)
    for job, damage in zip(jobs, (b"", b"{", b'{"call": "x"}', b"\xff\xfe"), strict=True):
        path_of(job, tmp_path).write_bytes(damage)
    done = list(run(jobs, tmp_path, ONE))
    assert [one.record.result for one in done] == [{"square": x * x} for x in range(4)]
    assert not any(one.kept for one in done)


def test_the_result_of_another_job_under_this_name_is_no_result(tmp_path: Path) -> None:
    job, other = squares(2)
    keep(Record.now(other, {"square": 1}, None, 0.1), tmp_path)
    path_of(other, tmp_path).rename(path_of(job, tmp_path))
    assert find(job, tmp_path) is None
    assert list(records(tmp_path)) == []


# ---------------------------------------------------------------- failures


WRONG = {
    "raise": ("ValueError", "no 3"),
    "exit": ("SystemExit", "enough"),
    "nan": ("ValueError", "not JSON compliant"),
    "object": ("TypeError", "not JSON serializable"),
    "list": ("TypeError", "must return a dict, not list"),
}


def test_failures_are_kept_and_stop_nobody(tmp_path: Path) -> None:
    jobs = [
        *(toy("wrong", way=way, x=3) for way in WRONG),
        toy("missing"),
        Job("no_such_module:square", {}),
        *squares(3),
    ]
    done = {done.job.key: done.record for done in run(jobs, tmp_path, TWO)}
    errors = [done[job.key].error for job in jobs]
    assert errors[-3:] == [None] * 3
    expected = [*WRONG.values(), ("AttributeError", "missing"), ("ModuleNotFoundError", "no_such_module")]
    for error, (kind, said) in zip(errors, expected, strict=False):
        assert error is not None
        assert error.type == kind
        assert said in error.message
        assert "Traceback" in error.traceback
    assert all(again.kept for again in run(jobs, tmp_path, TWO))


@pytest.mark.parametrize("call", ["square", "a.b", "a:b:c", "a:", "../x:y"])
def test_a_call_that_is_none(call: str) -> None:
    with pytest.raises(InputError, match="is no 'package"):
        Job(call, {})


def test_again_runs_what_failed_and_nothing_else(tmp_path: Path) -> None:
    jobs = [toy("mortal", deaths=1), toy("square", x=2)]
    hasty = Local(workers=1, tries=1)
    assert {done.job.call: done.failed for done in run(jobs, tmp_path, hasty)} == {
        "pool_toys:mortal": True,
        "pool_toys:square": False,
    }
    second = {done.job.call: done for done in run(jobs, tmp_path, hasty, again=True)}
    assert second["pool_toys:square"].kept
    assert second["pool_toys:mortal"].record.result == {"begun": 2}


# ---------------------------------------------------------------- workers that die


def test_a_killed_worker_costs_a_try_and_no_job(tmp_path: Path) -> None:
    jobs = [toy("mortal", deaths=2), toy("mortal", deaths=1, child=True), *squares(4)]
    (tmp_path / f".{jobs[0].key}.json.1234").touch()  # killed while it wrote
    started = time.monotonic()
    done = {done.job.key: done for done in run(jobs, tmp_path, TWO)}
    assert time.monotonic() - started < 20  # the child of the dead held the pipe open for a minute
    assert [done[job.key].record.result for job in jobs[:2]] == [{"begun": 3}, {"begun": 2}]
    assert not any(one.failed for one in done.values())
    assert not list(tmp_path.glob(".*"))


def test_who_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    jobs = [toy("mortal", deaths=99), toy("mortal", deaths=99, signal=int(signal.SIGABRT)), *squares(2)]
    done = {done.job.key: done.record for done in run(jobs, tmp_path, Local(workers=2, tries=2))}
    errors = [done[job.key].error for job in jobs]
    assert errors[2:] == [None, None]
    for error, name in zip(errors, ("SIGKILL", "SIGABRT"), strict=False):
        assert error is not None
        assert error.type == "Lost"
        assert name in error.message
        assert "tried 2 times" in error.message
        assert error.traceback == "begun\nbegun\n"  # its last words


def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    kills = []

    def kill() -> None:
        dice = random.Random(1)
        while len(kills) < 5 and not stop.wait(0.2 + 0.2 * dice.random()):
            for pid in dice.sample(sorted(children(os.getpid())), 1):
                os.kill(pid, signal.SIGKILL)
                kills.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        done = list(run(squares(40, seconds=0.05), tmp_path, Local(workers=2, tries=100)))
    finally:
        stop.set()
        killer.join()
    assert len(kills) == 5
    assert sorted(one.record.result["square"] for one in done) == [x * x for x in range(40)]  # type: ignore[index]


def test_a_worker_that_cannot_start_ends_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dmu_hw").mkdir()
    (tmp_path / "dmu_hw" / "__init__.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError, match="cannot be started: its process ended with status 7"):
        list(run(squares(3), tmp_path / "out", TWO))


def test_cores_are_shared_among_workers(tmp_path: Path) -> None:
    (done,) = run([toy("threads")], tmp_path, Local(workers=1))
    allowed = len(os.sched_getaffinity(0))
    assert done.record.result == {"threads": allowed}
    assert Local(workers=allowed + 1).threads == 1


# ---------------------------------------------------------------- the pool itself ends


def test_who_stops_listening_stops_the_workers(tmp_path: Path) -> None:
    before = children(os.getpid())
    work = run([toy("square", x=0), toy("square", x=1, seconds=60)], tmp_path, TWO)
    assert next(work).record.result == {"square": 0}
    workers = children(os.getpid()) - before
    started = time.monotonic()
    work.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 2
    assert workers
    assert not any(map(alive, workers))


POOL = """
import sys
from pathlib import Path
from dmu_hw.pool import Job, Local, run
jobs = [Job("pool_toys:slow_once", {"x": x}) for x in range(2)] + [Job("pool_toys:square", {"x": x}) for x in range(3)]
for done in run(jobs, Path(sys.argv[1]), Local(workers=2)):
    print(done.job.key, flush=True)
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pool in a process of its own, with both workers in the middle of a long job."""
    process = subprocess.Popen([sys.executable, "-c", POOL, str(tmp_path)], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: len(list(tmp_path.glob("*/begun-*"))) == 2)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_pool_and_the_rest_can_be_done_later(
    tmp_path: Path, pool: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    workers = {int(path.name.removeprefix("begun-")) for path in tmp_path.glob("*/begun-*")}
    assert all(map(alive, workers))
    pool.send_signal(number)
    pool.wait(timeout=10)
    wait_until(lambda: not any(map(alive, workers)), 2)
    assert list(tmp_path.glob("*.json")) == []
    jobs = [toy("slow_once", x=x) for x in range(2)]
    assert [done.record.result for done in run(jobs, tmp_path, TWO)] == [{"first": False}] * 2


def test_two_pools_in_one_folder(tmp_path: Path) -> None:
    jobs = squares(40)
    seen: list[list[Done]] = [[], []]
    threads = [
        threading.Thread(target=lambda one=one: one.extend(run(jobs, tmp_path, Local(workers=1)))) for one in seen
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in seen:
        assert sorted(done.record.result["square"] for done in one) == [x * x for x in range(40)]  # type: ignore[index]
    assert len(list(records(tmp_path))) == 40
    assert not list(tmp_path.glob(".*"))


def test_what_is_on_disk_is_plain(tmp_path: Path) -> None:
    (done,) = run([toy("square", x=5)], tmp_path, ONE)
    plain = json.loads(path_of(done.job, tmp_path).read_text())
    assert plain["config"] == {"x": 5}
    assert plain["result"] == {"square": 25}
    assert plain["error"] is None
    assert plain["version"]
    assert plain["host"]
    assert plain["finished"].endswith("+00:00")


# ---------------------------------------------------------------- submitit


SLURM = Slurm(kind="slurm", cluster="local", jobs_a_task=3, array_size=2, tries=2, timeout_min=1)


def test_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    jobs = [toy("mortal", deaths=1), toy("mortal", deaths=99), *squares(4), toy("wrong", way="raise", x=3)]
    done = {done.job.key: done.record for done in run(jobs, tmp_path, SLURM)}
    results = [done[job.key].result for job in jobs]
    assert results == [{"begun": 2}, None, *({"square": x * x} for x in range(4)), None]
    lost, failed = done[jobs[1].key].error, done[jobs[-1].key].error
    assert lost is not None
    assert failed is not None
    assert "tried 2 times" in lost.message
    assert failed.type == "ValueError"
    assert all(again.kept for again in run(jobs, tmp_path, SLURM))


def test_submitit_stops_its_tasks(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    work = run([toy("square", x=0), toy("slow_once", x=1)], tmp_path, SLURM.model_copy(update={"jobs_a_task": 1}))
    assert next(work).record.result == {"square": 0}
    wait_until(lambda: any(tmp_path.glob("*/begun-*")))
    (begun,) = tmp_path.glob("*/begun-*")
    work.close()  # type: ignore[attr-defined]
    wait_until(lambda: not alive(int(begun.name.removeprefix("begun-"))))


def test_a_task_that_is_preempted_leaves_the_rest_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    from dmu_hw.pool.slurm import Chunk

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    texts = [json.dumps({"call": job.call, "config": job.config}) for job in squares(2)]
    Chunk(str(tmp_path))(texts[:1])
    (before,) = records(tmp_path)
    Chunk(str(tmp_path)).checkpoint(texts).result()
    assert [find(job, tmp_path).result for job in squares(2)] == [{"square": 0}, {"square": 1}]  # type: ignore[union-attr]
    assert before in records(tmp_path)


# a SLURM of four shell scripts: tasks start at once, each in a session of its own, and leave their state in a file
COMMANDS = {
    "sbatch": """
id=$$; cp "$1" "$SLURM_HERE/$id.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
export SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
for k in $(if [[ $last ]]; then seq 0 $last; else echo alone; fi); do
  [[ $k == alone ]] && task=$id || { task=${id}_$k; export SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$k; }
  echo RUNNING > "$SLURM_HERE/$task"
  setsid bash -c 'echo $$ > "$1.pid"
    if bash "$0"; then echo COMPLETED > "$1"; else echo FAILED > "$1"; fi' \\
    "$SLURM_HERE/$id.sh" "$SLURM_HERE/$task" > /dev/null 2>&1 < /dev/null &
done
echo "Submitted batch job $id"
""",
    "srun": 'while [[ $1 == --* ]]; do if [[ $1 == --unbuffered ]]; then shift; else shift 2; fi; done; exec "$@"',
    "sacct": 'echo "JobID|State|NodeList"; cd "$SLURM_HERE"; for f in $(ls | grep -v [.]); do echo "$f|$(<$f)|"; done',
    "scancel": 'kill -9 -- -$(cat "$SLURM_HERE/$1.pid"); echo CANCELLED > "$SLURM_HERE/$1"',
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which it keeps what was submitted."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmJob.watcher, "_delay_s", 0.1)
    monkeypatch.setattr("dmu_hw.pool.slurm._LOOK_S", 0.1)
    here = tmp_path / "slurm-here"
    here.mkdir()
    (tmp_path / "bin").mkdir()
    for name, text in COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_HERE", str(here))
    return here


def test_slurm(tmp_path: Path, slurm: Path) -> None:
    jobs = [toy("mortal", deaths=1), *squares(4)]
    extra: dict[str, Any] = {"account": "mine", "exclusive": True}
    engine = Slurm(kind="slurm", jobs_a_task=2, array_size=2, partition="gpu", cpus=2, memory_gb=4, extra=extra)
    done = {done.job.key: done.record.result for done in run(jobs, tmp_path / "out", engine)}
    assert [done[job.key] for job in jobs] == [{"begun": 2}, *({"square": x * x} for x in range(4))]
    scripts = [path.read_text() for path in sorted(slurm.glob("*.sh"))]
    assert sorted(line for text in scripts for line in text.splitlines() if "--array" in line) == [
        "#SBATCH --array=0-1%2"
    ]
    assert len(scripts) == 3  # that array, the fifth job, and what the killed task left behind
    for asked in ("partition=gpu", "cpus-per-task=2", "mem=4GB", "time=60", "account=mine", "exclusive"):
        assert all(f"#SBATCH --{asked}\n" in text for text in scripts)


def test_slurm_is_told_to_cancel(tmp_path: Path, slurm: Path) -> None:
    work = run([toy("square", x=0), toy("slow_once", x=1)], tmp_path / "out", Slurm(kind="slurm"))
    assert next(work).record.result == {"square": 0}
    wait_until(lambda: any(tmp_path.glob("out/*/begun-*")))
    (begun,) = tmp_path.glob("out/*/begun-*")
    work.close()  # type: ignore[attr-defined]
    wait_until(lambda: not alive(int(begun.name.removeprefix("begun-"))))


def test_slurm_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="no sbatch here"):
        run(squares(1), tmp_path, Slurm(kind="slurm"))


@pytest.mark.parametrize(("kind", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed(tmp_path: Path, kind: str, module: str) -> None:
    program = f"""
import sys
sys.modules[{module!r}] = None
from pathlib import Path
from dmu_hw.errors import InputError
from dmu_hw.pool import Job, Ray, Slurm, run
try:
    run([], Path("x"), dict(ray=Ray, slurm=Slurm)[{kind!r}](kind={kind!r}))
except InputError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"{module} is not installed: pip install 'dmu-hw[{kind}]'" in told.stdout
    assert not (tmp_path / "x").exists()
