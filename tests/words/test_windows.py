"""dmu_hw works on Windows by construction: what is not there, or is otherwise, is found in the source before anybody
starts it. Each exception is listed here with its reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "dmu_hw").rglob("*.py")) + sorted((ROOT / "devices").rglob("*.py"))

ALLOWED: dict[tuple[str, str], str] = {
    ("dmu_hw/twins/laser.py", "import tty"): "the twin says on Windows that there are no pseudo-terminals, and ends",
    ("dmu_hw/twins/laser.py", "os.openpty"): "the twin says on Windows that there are no pseudo-terminals, and ends",
    ("dmu_hw/twins/laser.py", "select.select"): "the twin says on Windows that there are no pseudo-terminals, and ends",
    ("dmu_hw/moves.py", "source.replace(target)"): "here it is done",
    ("dmu_hw/state.py", "'/var/tmp'"): "the folder of systems that are not Windows, which has its own above",
    ("dmu_hw/state.py", "'/Users/Shared'"): "the folder of macOS",
}
"""(file, what) → why it may stand there."""

POSIX_MODULES = {"pty", "tty", "termios", "fcntl", "resource", "pwd", "grp", "posix", "syslog", "crypt", "readline"}
POSIX_CALLS = {
    *("os.fork", "os.forkpty", "os.openpty", "os.killpg", "os.getpgid", "os.getpgrp", "os.setsid", "os.getsid"),
    *("os.getuid", "os.geteuid", "os.getgid", "os.nice", "os.sync", "os.fdatasync", "os.uname", "os.mkfifo"),
    *("os.chown", "os.chroot", "os.sched_setaffinity", "os.sched_getaffinity", "os.sysconf", "os.statvfs"),
    *("os.posix_fadvise", "os.posix_fallocate", "os.wait", "os.waitpid", "os.getloadavg", "os.setpriority"),
    *("signal.alarm", "signal.setitimer", "signal.pause", "signal.sigwait", "signal.pthread_kill"),
    *("signal.SIGKILL", "signal.SIGSTOP", "signal.SIGCONT", "signal.SIGALRM", "signal.SIGHUP", "signal.SIGQUIT"),
    *("signal.SIGUSR1", "signal.SIGUSR2", "signal.SIGPIPE", "signal.SIGCHLD", "signal.SIGTSTP"),
    *("time.clock_gettime", "time.tzset", "socket.AF_UNIX", "select.poll", "select.epoll"),
}
"""What Windows lacks. Asking by hasattr, or for sys.platform, round the lines makes it safe."""
NEVER = {
    "select.select": "on Windows it knows sockets only",
    "os.rename": "on Windows it refuses where a file of that name is: dmu_hw.moves",
    "shutil.move": "on Windows it refuses where somebody reads: dmu_hw.moves",
    "os.symlink": "on Windows it needs rights that few have",
    "os.link": "on Windows not all disks have it",
    "os.mkfifo": "there are no such pipes",
    "os.kill": "on Windows any signal but two ends the process at once",
}
WINDOWS_FLAGS = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND"}
TEXT_CALLS = {"read_text", "write_text"}
STRFTIME = re.compile(r"%[-_#^0]|%[klsP+]")
"""Codes that Windows does not know."""


def source_of(node: ast.AST) -> str:
    return ast.unparse(node)


def parents_of(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}


def is_guarded(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether the lines round it ask which system this is."""
    name = source_of(node).rpartition(".")[2].removeprefix("import ")
    place: ast.AST | None = node
    while place is not None:
        if isinstance(place, ast.If | ast.IfExp):
            asked = source_of(place.test)
            if "sys.platform" in asked or f"hasattr(os, '{name}')" in asked or "hasattr(os, 'killpg')" in asked:
                return True
        place = parents.get(place)
    return False


def dotted(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node, f"{node.value.id}.{node.attr}"


def imported(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node, node.module.partition(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """With the last part of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, source_of(node.func).rpartition(".")[2]


def keywords(call: ast.Call) -> set[str]:
    return {keyword.arg or "**" for keyword in call.keywords}


def docstrings(tree: ast.AST) -> set[ast.AST]:
    """All strings that are statements of their own."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


# ---------------------------------------------------------------- the suspects: (what, why)


def posix_only(tree: ast.AST) -> Iterator[tuple[str, str]]:
    parents = parents_of(tree)
    for node, name in imported(tree):
        if name in POSIX_MODULES and not is_guarded(node, parents):
            yield f"import {name}", "there is no such module on Windows"
    for node, name in dotted(tree):
        if name in POSIX_CALLS and not is_guarded(node, parents):
            yield name, "is not there on Windows: ask by hasattr, or sys.platform"
        if name in NEVER:
            yield name, NEVER[name]
        if name.startswith("os.O_") and name.removeprefix("os.") not in WINDOWS_FLAGS:
            yield name, "is not there on Windows"


def processes(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for _, name in imported(tree):
        if name == "multiprocessing":
            yield "import multiprocessing", "forks by itself on Linux: dmu_hw.pool has workers that do not"
    for call, name in calls(tree):
        given = keywords(call)
        if name in ("Popen", "run", "check_output") and "subprocess" in source_of(call.func):
            if given & {"preexec_fn", "pass_fds"}:
                yield source_of(call.func), "preexec_fn and pass_fds are not there on Windows"
            if given & {"text", "universal_newlines"} and "encoding" not in given:
                yield source_of(call.func), "text has another encoding on Windows: say encoding"
            if "shell" in given:
                yield source_of(call.func), "the shell is another one"


def texts(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Files of text say how they are written: Windows would take its own letters and ends of lines."""
    for call, name in calls(tree):
        given = keywords(call)
        if name in TEXT_CALLS:
            least = {"read_text": 1, "write_text": 2}[name]
            if "encoding" not in given and len(call.args) < least and not _is_own(call):
                yield source_of(call), "says no encoding"
            if name == "write_text" and "newline" not in given and not _is_own(call):
                yield source_of(call), "says no newline"
        if name in ("open", "fdopen", "NamedTemporaryFile", "TextIOWrapper") and not _is_method_of_device(call):
            mode = _mode(call, name)
            if mode is not None and "b" not in mode and "encoding" not in given:
                yield source_of(call), "is text and says no encoding"
            if mode is not None and "b" not in mode and set(mode) & set("wax") and "newline" not in given:
                yield source_of(call), "is text and says no newline"
        if name == "writer" and "csv" in source_of(call.func) and "lineterminator" not in given:
            yield source_of(call), "says no lineterminator: rows would end in other ways"


def _is_own(call: ast.Call) -> bool:
    """dmu_hw.files.read_text, which says its encoding itself."""
    return isinstance(call.func, ast.Name) or source_of(call.func).startswith(("resources.", "files."))


def _is_method_of_device(call: ast.Call) -> bool:
    """`device.open()`: nothing in it says that it is about a file."""
    return isinstance(call.func, ast.Attribute) and not call.args and "mode" not in keywords(call)


def _mode(call: ast.Call, name: str) -> str | None:
    """What a file is opened for; None where that is not written here."""
    place = 0 if name == "open" and isinstance(call.func, ast.Attribute) and source_of(call.func) != "os.open" else 1
    if source_of(call.func) == "os.open":
        return None
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[place : place + 1]
    if not given:
        return "r"
    return given[0].value if isinstance(given[0], ast.Constant) and isinstance(given[0].value, str) else None


def paths(tree: ast.AST) -> Iterator[tuple[str, str]]:
    asides = docstrings(tree)
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and node not in asides else None
        if isinstance(text, str) and re.match(r"/(tmp|dev|var|usr|home|etc|proc|sys|Users)(/|$)", text):
            yield repr(text), "is a place that Windows has not"
    for call, name in calls(tree):
        if name in ("split", "rsplit", "partition", "rpartition", "startswith", "endswith", "join") and call.args:
            on = source_of(call.func).lower()
            slash = isinstance(call.args[0], ast.Constant) and call.args[0].value == "/"
            if slash and re.search(r"path|folder|file|place", on):
                yield source_of(call), "takes a path apart by '/': pathlib does so on any system"
        if name == "rename" and not keywords(call) and len(call.args) == 1:
            yield source_of(call), "is refused on Windows where somebody reads: dmu_hw.moves"
        if name == "replace" and len(call.args) == 1 and not call.keywords:
            yield source_of(call), "is refused on Windows where somebody reads: dmu_hw.moves"
        if name == "commonprefix":
            yield source_of(call), "compares letters, not parts of paths"


def times(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for call, name in calls(tree):
        if name in ("strftime", "strptime"):
            for given in call.args:
                if isinstance(given, ast.Constant) and isinstance(given.value, str) and STRFTIME.search(given.value):
                    yield source_of(call), "has a code that Windows does not know"
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and re.match(r"time\.monotonic\(\) \* 1(e3|000)\b", source_of(node)):
            yield source_of(node), "goes in steps of 16 ms on Windows: dmu_hw.ports.MachineClock"
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            code = "".join(str(part.value) for part in ast.walk(node.format_spec) if isinstance(part, ast.Constant))
            if "%Y" in code and STRFTIME.search(code):
                yield source_of(node), "has a code that Windows does not know"


SUSPECTS: tuple[Callable[[ast.AST], Iterator[tuple[str, str]]], ...] = (posix_only, processes, texts, paths, times)


def found_in(source: str) -> list[tuple[str, str]]:
    tree = ast.parse(source)
    return [one for suspect in SUSPECTS for one in suspect(tree)]


def test_nothing_stands_in_the_way_of_windows() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), what): why
        for path in FILES
        for what, why in found_in(path.read_text(encoding="utf-8"))
    }
    new = [f"{file}: {what}: {why}" for (file, what), why in found.items() if (file, what) not in ALLOWED]
    assert not new, "\n".join(new)
    assert not set(ALLOWED) - set(found), "no longer needed"


BAD = {
    "import fcntl": "there is no such module",
    "from termios import tcgetattr": "there is no such module",
    "import os\nos.fork()": "is not there on Windows",
    "import os, signal\nos.killpg(0, 9)\nsignal.SIGKILL": "is not there on Windows",
    "import os, signal\nos.kill(1, 15)": "any signal but two",
    "import os\nos.rename('a', 'b')": "dmu_hw.moves",
    "from pathlib import Path\nPath('a').rename('b')": "dmu_hw.moves",
    "from pathlib import Path\nPath('a').replace(Path('b'))": "dmu_hw.moves",
    "open('/tmp/x', 'rb')": "is a place that Windows has not",
    "PORT = '/dev/ttyUSB0'": "is a place that Windows has not",
    "open('x')": "says no encoding",
    "open('x', 'w')": "says no encoding",
    "open('x', mode='a')": "says no encoding",
    "path.open('w')": "says no encoding",
    "path.read_text()": "says no encoding",
    "path.write_text('x')": "says no encoding",
    "open('x', 'a', encoding='utf-8')": "says no newline",
    "path.write_text('x', encoding='utf-8')": "says no newline",
    "import multiprocessing": "forks by itself",
    "import select\nselect.select([0], [], [])": "sockets only",
    "import os\nos.open('x', os.O_NONBLOCK)": "is not there on Windows",
    "str(path).split('/')": "takes a path apart",
    "import time\ntime.strftime('%-d.%m')": "has a code that Windows does not know",
    "name = f'{now:%Y-%m-%d %s}'": "has a code that Windows does not know",
    "import time\nnow_ms = time.monotonic() * 1e3": "steps of 16 ms",
    "import subprocess\nsubprocess.run(['x'], text=True)": "say encoding",
    "import subprocess\nsubprocess.Popen(['x'], preexec_fn=print)": "preexec_fn",
}
GOOD = (
    "import sys\nif sys.platform == 'win32':\n    import msvcrt\nelse:\n    import fcntl",
    "import os\nif hasattr(os, 'nice'):\n    os.nice(5)",
    "import os, signal\nif hasattr(os, 'killpg'):\n    os.killpg(1, signal.SIGKILL)",
    "open('x', encoding='utf-8')",
    "open('x', 'w', encoding='utf-8', newline='')",
    "open('x', 'rb')",
    "device.open()",
    "path.read_text('utf-8')",
    "text.replace('a', 'b')",
    "'a/b'.split('/')",
    '"""/dev/ttyUSB0, COM3"""',
    "import os\nos.open(os.devnull, os.O_RDONLY)",
    "import time\ntime.strftime('%Y%m%dT%H%M%S')",
    "import time\nuntil_s = time.monotonic() + 0.5",
)


@pytest.mark.parametrize("source", BAD)
def test_a_suspect_is_found(source: str) -> None:
    assert any(BAD[source] in why for _, why in found_in(source))


@pytest.mark.parametrize("source", GOOD)
def test_what_is_sound_is_let_pass(source: str) -> None:
    assert found_in(source) == []
