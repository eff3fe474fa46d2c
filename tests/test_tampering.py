"""What a plugin in the host's own process did to it while it was loaded is noticed and put back.

Each case runs in a process of its own, for it changes what all tests share.
"""

import importlib.util
import json
import subprocess
import sys
import textwrap

import pytest

from hostkit._tampering import Snapshot

# Imports what is looked at, then forks for each case: a line of JSON comes in, the child's findings and its status go out.
FORKS = """
import asyncio, json, multiprocessing, os, pickle, queue, selectors, ssl, subprocess, sys, threading
from hostkit._tampering import Snapshot

def run(source):
    exec(source, {"__name__": "bad_plugin"})

def case(source, own, place, stderr):
    os.chdir(place)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    before = Snapshot.take()
    unchanged = before.changes()
    run(source)
    found = before.changes(own)
    words = before.restore(own)
    return [[[change.what, change.found] for change in changes] for changes in (unchanged, found, before.changes(own))] + [words]

tell, fork, wait, told = os.write, os.fork, os.waitpid, json.JSONEncoder().encode
for line in sys.stdin:
    child = fork()
    if child == 0:
        tell(1, told(case(*json.loads(line))).encode() + b"\\n")
        break
    tell(1, b"%d\\n" % wait(child, 0)[1])
"""


@pytest.fixture(scope="module")
def forks():
    with subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def tamper(forks, tmp_path):
    """Run a plugin's source in a process of its own: what was found, what was left after putting it back, and the words."""

    def run(source, own=()):
        place = tmp_path / "place"
        place.mkdir(exist_ok=True)
        forks.stdin.write(json.dumps([textwrap.dedent(source), list(own), str(place), str(tmp_path / "stderr")]) + "\n")
        forks.stdin.flush()
        lines = [forks.stdout.readline()]
        while not lines[-1].strip().isdigit():
            assert lines[-1], "the process that forks has ended"
            lines.append(forks.stdout.readline())
        assert lines[1:] == ["0\n"], (lines, (tmp_path / "stderr").read_text())
        unchanged, found, left, words = json.loads(lines[0])
        assert unchanged == []
        return dict(map(tuple, found)), left, words

    return run


CASES = {
    "sys.path insert": ("import sys; sys.path.insert(0, '/x')", "sys.path", "added '/x'"),
    "sys.path append": ("import sys; sys.path.append('/x')", "sys.path", "added '/x'"),
    "sys.path remove": ("import sys; sys.path.pop()", "sys.path", "removed '"),
    "sys.path order": ("import sys; sys.path.reverse()", "sys.path", "the order changed"),
    "sys.path again": ("import sys; sys.path.insert(0, sys.path[-1])", "sys.path", "the order changed"),
    "sys.path many": ("import sys; sys.path += map(str, range(9))", "sys.path", "added '0', '1', '2' and 6 more"),
    "sys.path other list": ("import sys; sys.path = sys.path + ['/x']", "sys.path", "added '/x'"),
    "sys.path no list": ("import sys; sys.path = None", "sys.path", "replaced by None"),
    "sys.meta_path": (
        "import sys\nclass Finder:\n  find_spec = staticmethod(lambda *a, **k: None)\nsys.meta_path.insert(0, Finder())",
        "sys.meta_path",
        "added a Finder",
    ),
    "sys.meta_path remove": ("import sys; del sys.meta_path[0]", "sys.meta_path", "removed "),
    "sys.path_hooks": ("import sys; sys.path_hooks.insert(0, print)", "sys.path_hooks", "added a builtin_function_or_method"),
    "signal": (
        "import signal\ndef stop(*a): pass\nsignal.signal(signal.SIGTERM, stop)",
        "signal SIGTERM",
        "its handler is the function stop (<string>:2), was SIG_DFL",
    ),
    "signal ignored": (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal SIGINT",
        "its handler is SIG_IGN, was ",
    ),
    "warnings ignore": ("import warnings; warnings.simplefilter('ignore')", "warnings filters", "added (ignore, Warning)"),
    "warnings error": (
        "import warnings; warnings.filterwarnings('error', category=DeprecationWarning, module='os')",
        "warnings filters",
        "added (error, DeprecationWarning, module 'os')",
    ),
    "warnings reset": ("import warnings; warnings.resetwarnings()", "warnings filters", "removed (default, DeprecationWarning"),
    "warnings order": ("import warnings; warnings.simplefilter('ignore', ImportWarning)", "warnings filters", "the order changed"),
    "warnings other list": ("import warnings; warnings.filters = []", "warnings filters", "removed "),
    "warnings caught": (
        "import warnings\nwarnings.catch_warnings().__enter__()\nwarnings.simplefilter('ignore')",
        "warnings filters",
        "added (ignore, Warning)",
    ),
    "warnings shown": (
        "import logging; logging.captureWarnings(True)",
        "warnings.showwarning",
        "replaced by the function _showwarning (",
    ),
    "root level": ("import logging; logging.getLogger().setLevel(10)", "root logger", "its level is 10, was 30"),
    "root handler": ("import logging; logging.basicConfig()", "root logger", "its handlers: added a StreamHandler"),
    "root filter": (
        "import logging; logging.root.addFilter(lambda r: 0)",
        "root logger",
        "its filters: added the function <lambda> (",
    ),
    "root disabled": ("import logging; logging.root.disabled = True", "root logger", "disabled is True, was False"),
    "logging.disable": ("import logging; logging.disable(50)", "root logger", "what logging.disable suppresses is 50, was 0"),
    "logger class": (
        "import logging\nclass Own(logging.Logger): pass\nlogging.setLoggerClass(Own)",
        "root logger",
        "the class of new loggers is the class Own, was the class Logger",
    ),
    "lastResort": ("import logging; logging.lastResort = None", "logging.lastResort", "replaced by None"),
    "cwd": ("import os; os.chdir('/')", "cwd", "is '/', was '"),
    "environment added": ("import os; os.environ['NEW_ONE'] = 'geheim'", "os.environ NEW_ONE", "added"),
    "environment default": ("import os; os.environ.setdefault('NEW_ONE', 'geheim')", "os.environ NEW_ONE", "added"),
    "environment changed": ("import os; os.environ['PATH'] += ':geheim'", "os.environ PATH", "changed"),
    "environment removed": ("import os; del os.environ['PATH']", "os.environ PATH", "removed"),
    "environment replaced": ("import os; os.environ = {'PATH': 'geheim'}", "os.environ", "replaced by a dict"),
    "umask": ("import os; os.umask(0o027) == 0o027 and os.umask(0o022)", "umask", "is '00"),
    "locale": ("import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8')", "locale", "is "),
    "builtins added": ("import builtins; builtins._ = str", "builtins._", "added the class str"),
    "builtins replaced": (
        "import builtins; builtins.open = lambda *a: None",
        "builtins.open",
        "replaced by the function <lambda> (<string>:1)",
    ),
    "builtins removed": ("import builtins; del builtins.reversed", "builtins.reversed", "removed"),
    "builtins that look": (
        "import builtins; builtins.any = builtins.map = lambda *a: ()",
        "builtins.any",
        "replaced by the function <lambda>",
    ),
    "builtins missing": ("import builtins; del builtins.any, builtins.list, builtins.map, builtins.zip", "builtins.any", "removed"),
    "import": (
        "import builtins; f = builtins.__import__; builtins.__import__ = lambda *a: f(*a)",
        "builtins.__import__",
        "replaced by the f",
    ),
    "module replaced": (
        "import sys, types; sys.modules['json'] = types.ModuleType('json')",
        "sys.modules json",
        "replaced by a module",
    ),
    "module removed": ("import sys; del sys.modules['json.decoder']", "sys.modules json.decoder", "removed"),
    "module forbidden": ("import sys; sys.modules['json'] = None", "sys.modules json", "replaced by None"),
    "modules replaced": ("import sys; sys.modules = dict(sys.modules)", "sys.modules", "replaced by a dict"),
    "os patched": ("import os; os.getcwd = lambda: '/'", "os.getcwd", "replaced by the function <lambda> (<string>:1)"),
    "socket patched": (
        "import socket\nclass S(socket.socket): pass\nsocket.socket = S",
        "socket.socket",
        "replaced by the class S",
    ),
    "class patched": ("import threading; threading.Thread.start = None", "threading.Thread.start", "replaced by None"),
    "method removed": ("import json; del json.JSONEncoder.iterencode", "json.JSONEncoder.iterencode", "removed"),
    "ssl unverified": (
        "import ssl; ssl._create_default_https_context = ssl._create_unverified_context",
        "ssl._create_default_https_context",
        "replaced by the function _create_unverified_context (",
    ),
    "sys.excepthook": ("import sys; sys.excepthook = print", "sys.excepthook", "replaced by a builtin_function_or_method"),
    "threading.excepthook": ("import threading; threading.excepthook = print", "threading.excepthook", "replaced by a b"),
    "sys.unraisablehook": ("import sys; sys.unraisablehook = print", "sys.unraisablehook", "replaced by a b"),
    "stdout": ("import io, sys; sys.stdout = io.StringIO()", "sys.stdout", "replaced by a StringIO"),
    "stderr": ("import sys; sys.stderr = None", "sys.stderr", "replaced by None"),
    "stdin": ("import sys; sys.stdin = open('/dev/null')", "sys.stdin", "replaced by a TextIOWrapper"),
    "recursion limit": ("import sys; sys.setrecursionlimit(12345)", "recursion limit", "is 12345, was "),
    "switch interval": ("import sys; sys.setswitchinterval(0.5)", "thread switch interval", "is 0.5, was 0.005"),
    "settrace": (
        "import sys\ndef trace(*a): pass\nsys.settrace(trace)",
        "trace function",
        "is the function trace (<string>:2), was ",
    ),
    "setprofile": (
        "import sys\ndef profile(*a): pass\nsys.setprofile(profile)",
        "profile function",
        "is the function profile (<str",
    ),
    "threads' trace": ("import threading; threading.settrace(print)", "threading._trace_hook", "replaced by a b"),
    "event loop policy": (
        "from asyncio import events\nclass Policy: pass\nevents._event_loop_policy = Policy()",
        "event loop policy",
        "is a Policy, was None",
    ),
    "socket timeout": ("import socket; socket.setdefaulttimeout(3)", "default socket timeout", "is 3.0, was None"),
    "gc off": ("import gc; gc.disable()", "garbage collector", "enabled is False, was True"),
    "gc thresholds": ("import gc; gc.set_threshold(1, 2, 3)", "garbage collector", "its threshold is (1, 2, 3), was ("),
    "time zone": ("import os, time; os.environ['TZ'] = 'XYZ-3'; time.tzset()", "time.timezone", "replaced by -10800"),
}


@pytest.mark.parametrize(("source", "what", "found"), CASES.values(), ids=CASES)
def test_each_thing_that_a_plugin_did_is_told_and_put_back(tamper, source, what, found):
    changes, left, words = tamper(source)
    assert what in changes
    assert changes[what].startswith(found)
    assert left == []
    assert words == []
    assert "geheim" not in str(changes)
    # One thing done is one thing told, but where it shows in several places.
    assert len(changes) == 1 or what in ("warnings.showwarning", "time.timezone", "builtins.any"), changes


HARMLESS = {
    "nothing": "",
    "new modules": "import colorsys, plistlib, importlib.resources, logging.handlers, concurrent.futures.process",
    "a module of its own": "import sys, types; sys.modules['brand_new'] = types.ModuleType('brand_new')",
    "at exit": "import atexit; atexit.register(list)",
    "its own logger": "import logging; log = logging.getLogger('x'); log.addHandler(logging.NullHandler()); log.setLevel(10)",
    "an event loop": "import asyncio; asyncio.new_event_loop().close(); asyncio.run(asyncio.sleep(0))",
    "there and back": "import os; there = os.getcwd(); os.chdir('/'); os.chdir(there); os.environ['X'] = '1'; del os.environ['X']",
    "a module again": "import sys; there = sys.modules.pop('json'); sys.modules['json'] = there",
    "warnings caught": "import warnings\nwith warnings.catch_warnings():\n  warnings.simplefilter('error')",
    "warnings of its own": "import warnings\nclass Own(Warning): pass\nwarnings.simplefilter('always', Own, append=True)",
    "warnings by text": "import warnings; warnings.filterwarnings('ignore', message='numpy.ndarray size changed')",
    "a last finder": "import sys\nclass Finder:\n  find_spec = staticmethod(lambda *a: None)\nsys.meta_path.append(Finder())",
    "an attribute more": "import json; json.more = 1",
    "the same time zone": "import time; time.tzset()",
    "the same again": "import logging, sys, socket; logging.disable(0); sys.path = list(sys.path); socket.setdefaulttimeout(None)",
    "a thread": "import threading; thread = threading.Thread(target=list); thread.start(); thread.join()",
}


@pytest.mark.parametrize("source", HARMLESS.values(), ids=HARMLESS)
def test_what_well_behaved_plugins_do_is_no_change(tamper, source):
    assert tamper(source) == ({}, [], [])


@pytest.mark.parametrize("module", ["numpy", "PIL.Image", "pydantic", "sqlalchemy", "multiprocess", "unittest.mock"])
def test_importing_a_well_known_package_is_no_change(tamper, module):
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip("not installed")
    assert tamper(f"import {module}") == ({}, [], [])


def test_putting_back_leaves_what_was_harmless(tamper, tmp_path):
    source = """
        import os, sys, warnings
        class Own(Warning): pass
        class Finder:
            find_spec = staticmethod(lambda *a: None)
        before, finders = list(warnings.filters), list(sys.meta_path)
        finder = Finder()
        sys.meta_path.append(finder)
        sys.meta_path.insert(0, Finder())
        warnings.simplefilter("ignore", Own)
        warnings.simplefilter("default", Own, append=True)
        warnings.simplefilter("error")
        import atexit
        def check():
            assert sys.meta_path == [*finders, finder], sys.meta_path
            assert warnings.filters == [("ignore", None, Own, None, 0), *before, ("default", None, Own, None, 0)], warnings.filters
            os.write(2, b"as it should be\\n")
        atexit.register(check)
    """
    found, left, words = tamper(source)
    assert (tmp_path / "stderr").read_text() == "as it should be\n"
    assert set(found) == {"sys.meta_path", "warnings filters"}
    assert left == words == []


def test_what_a_plugins_filters_decided_is_forgotten_with_them(tamper, tmp_path):
    source = """
        import atexit, warnings
        warnings.simplefilter("default")
        def warn():
            warnings.warn("once for each place", RuntimeWarning)
        warn()
        warn()
        atexit.register(warn)
    """
    found, _, _ = tamper(source)
    assert set(found) == {"warnings filters"}
    assert (tmp_path / "stderr").read_text().count("RuntimeWarning: once for each place") == 2


def test_the_clock_shows_the_hosts_time_again(tamper, tmp_path):
    source = """
        import atexit, os, time
        hour = time.localtime(0).tm_gmtoff
        os.environ["TZ"] = "XYZ-3"
        time.tzset()
        assert time.localtime(0).tm_gmtoff == 10800
        atexit.register(lambda: os.write(2, b"%d" % (time.localtime(0).tm_gmtoff - hour)))
    """
    _, left, words = tamper(source)
    assert left == words == []
    assert (tmp_path / "stderr").read_text() == "0"


def test_a_plugin_may_load_its_own_modules_anew_and_mute_them(tamper):
    setup = """
        import sys, types, warnings
        for name in ("json", "json.decoder"):
            sys.modules[name] = types.ModuleType(name)
        warnings.filterwarnings("ignore", module=r"json\\.")
    """
    assert tamper(setup, own=["json"]) == ({}, [], [])
    found, left, words = tamper(setup, own=["js", "json.decoder"])
    assert set(found) == {"sys.modules json", "sys.modules json.decoder", "warnings filters"}
    assert left == words == []


HOSTILE = """
    import builtins, logging, os, signal, sys, warnings
    def bite(*a, **k):
        os._exit(9)
    class Meta(type):
        __eq__ = __repr__ = __getattribute__ = __instancecheck__ = __subclasscheck__ = bite
        __hash__ = type.__hash__
    class Hostile(metaclass=Meta):
        __eq__ = __repr__ = __str__ = __bool__ = __len__ = __iter__ = __getattribute__ = __call__ = __hash__ = bite
    class Paths(list):
        __eq__ = __iter__ = __len__ = __getitem__ = __repr__ = bite
    class Name(str):
        __eq__ = __repr__ = __str__ = __format__ = __add__ = bite
        __hash__ = str.__hash__
    x = object.__new__(Hostile)
    sys.modules["json"] = x
    sys.stdin = x
    builtins.open = x
    builtins.more = Hostile
    os.getpid = x
    sys.path = Paths([x, Name("/x"), "/y"])
    sys.meta_path.insert(0, x)
    sys.path_hooks.append(Hostile)
    warnings.filters.insert(0, x)
    warnings.filters.insert(0, (x, x, Hostile, x, x))
    warnings.filters.insert(0, (Name("ignore"), None, Warning, None, 0))
    logging.root.handlers.append(x)
    logging.root.filters = Paths([x])
    logging.root.level = x
    signal.signal(signal.SIGUSR1, bite)
    from asyncio import events
    events._event_loop_policy = x
"""


def test_hostile_objects_are_never_asked_anything(tamper):
    found, left, words = tamper(HOSTILE)
    assert set(found) == {
        "sys.modules json", "sys.stdin", "builtins.open", "builtins.more", "os.getpid", "sys.path", "sys.meta_path", "sys.path_hooks",
        "warnings filters", "root logger", "signal SIGUSR1", "event loop policy",
    }  # fmt: skip
    assert found["sys.modules json"] == "replaced by a Hostile"
    assert found["builtins.more"] == "added the class Hostile"
    assert found["sys.path"].startswith("added a Hostile, a Name, '/y'")
    assert left == words == []


def test_places_that_hold_something_else_altogether_are_told_and_put_back(tamper):
    source = """
        import logging, sys, warnings
        sys.meta_path = sys.path_hooks = sys.path = warnings.filters = logging.root.handlers = 5
        logging.root.filters = ()
        del logging.root.disabled, logging._loggerClass
    """
    found, left, words = tamper(source)
    assert set(found) == {"sys.path", "sys.meta_path", "sys.path_hooks", "warnings filters", "root logger"}
    assert found["sys.meta_path"] == found["sys.path"] == found["warnings filters"] == "replaced by 5"
    assert left == words == []


def test_places_that_are_gone_are_told_and_put_back(tamper):
    source = """
        import logging, sys, warnings
        del sys.path, sys.meta_path, sys.path_hooks, sys.modules, sys.stdout, warnings.filters, warnings.catch_warnings
        del logging.root.level, logging.root.disabled, logging.root.handlers, logging.root.filters
    """
    found, left, words = tamper(source)
    assert set(found) == {
        "sys.path", "sys.meta_path", "sys.path_hooks", "sys.modules", "sys.stdout", "warnings filters", "warnings.catch_warnings", "root logger",
    }  # fmt: skip
    assert left == words == []


def test_what_cannot_be_read_any_more_is_told(tamper):
    found, left, words = tamper("import os\nos.environb._data = 5\nos.chdir('/')")
    assert found["os.environ"] == "can't be read any more: TypeError"
    assert found["cwd"].startswith("is '/', was ")
    assert left == [["os.environ", "can't be read any more: TypeError"]]
    assert len(words) == 1
    assert words[0].startswith("os.environ: TypeError: ")


def test_a_module_under_another_name_is_no_longer_where_it_was(tamper):
    found, left, words = tamper("import sys\nname, module = sys.modules.popitem()\nsys.modules['other'] = module")
    assert list(found.values()) == ["removed"]
    assert left == words == []


def test_what_cannot_be_put_back_is_told_and_stops_nothing_else(tamper):
    source = """
        import os, signal, sys, threading
        there = os.getcwd()
        os.chdir("/")
        os.rmdir(there)
        os.environ["AFTER"] = "geheim"
        sys.setrecursionlimit(4321)
    """
    found, left, words = tamper(source)
    assert set(found) == {"cwd", "os.environ AFTER", "recursion limit"}
    assert [what for what, _ in left] == ["cwd"]
    assert len(words) == 1
    assert words[0].startswith("cwd: FileNotFoundError: ")


def test_signal_handlers_are_put_back_by_the_main_thread_only(tmp_path):
    program = """
        import signal, threading
        from hostkit._tampering import Snapshot
        before = Snapshot.take()
        signal.signal(signal.SIGTERM, print)
        signal.signal(signal.SIGHUP, print)
        thread = threading.Thread(target=lambda: print(*before.restore(), sep="\\n"))
        thread.start()
        thread.join()
        print([change.what for change in before.changes()])
        print(before.restore(), before.changes())
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True)
    hangup, terminate, still, restored = ran.stdout.splitlines()
    assert hangup.startswith("signal SIGHUP: ValueError: signal only works in main thread")
    assert terminate.startswith("signal SIGTERM: ValueError: ")
    assert still == "['signal SIGHUP', 'signal SIGTERM']"
    assert restored == "() ()"


def test_a_snapshot_of_a_spoiled_process_is_taken_all_the_same(tmp_path):
    program = """
        import logging, os, sys
        from hostkit._tampering import Snapshot
        os.rmdir(os.getcwd())
        sys.path_hooks = None
        del logging.root.disabled
        before = Snapshot.take()
        assert before.changes() == ()
        os.environ["X"] = "1"
        print([change.what for change in before.changes()], before.restore(), before.changes())
    """
    place = tmp_path / "place"
    place.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=place, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "['os.environ X'] () ()\n"


def test_the_names_told_fit_one_line(tamper):
    source = """
        import os, sys
        os.environ["LINE\\nBREAK\\x1b[31m"] = "geheim"
        os.environb[b"\\xff\\xfe"] = b"geheim"
        sys.path.append("/new\\nline")
    """
    found, left, words = tamper(source)
    assert set(found) == {"os.environ LINE\\nBREAK\\x1b[31m", "os.environ \\udcff\\udcfe", "sys.path"}
    assert found["sys.path"] == r"added '/new\nline'"
    assert left == words == []


def test_loading_a_plugin_in_process_is_no_change_by_hostkit_itself(install, host):
    install(
        "good",
        """
        import asyncio, decimal
        from dataclasses import dataclass
        class P:
            async def execute(self, ctx, request):
                return request
        """,
    )
    before = Snapshot.take()
    host.load("good", isolation="none")
    assert host.execute("good", 1) == 1
    assert before.changes() == ()
