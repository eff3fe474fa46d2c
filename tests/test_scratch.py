"""Private directories of confined workers: gone with the worker, with the host, and where the host was killed with the next host."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hostkit._scratch import Scratch, remove

SANDBOX = "standard"
PLUGIN = """
import os, tempfile
class P:
    def execute(self, ctx, request):
        fd, path = tempfile.mkstemp()
        os.close(fd)
        return [os.environ["TMPDIR"], os.environ["HOME"], path]
"""


@pytest.fixture
def scratch():
    found = Scratch()
    yield found
    found.close()


def test_a_worker_writes_into_a_directory_of_its_own_that_goes_with_it(install, new_host, until):
    install("p", PLUGIN)
    host = new_host()
    host.load("p", isolation="process")
    place, home, path = host.execute("p", None)
    assert place == home == os.path.dirname(path)
    assert os.stat(place).st_mode & 0o777 == 0o700
    host.reload("p")
    until(lambda: not os.path.exists(place))
    host.close()
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_what_a_killed_host_left_is_removed_by_the_next_one(scratch):
    program = "import os; from hostkit._scratch import Scratch; s = Scratch(); print(s.make(), flush=True); os.kill(os.getpid(), 9)"
    left = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True).stdout.strip()
    Path(left, "file").write_text("left")
    scratch.make()
    assert not os.path.exists(os.path.dirname(left))


def test_what_another_host_uses_stays(scratch):
    other = Scratch()
    place = other.make()
    scratch.make()
    assert os.path.isdir(place)
    other.close()
    assert not os.path.exists(place)


def test_a_directory_that_is_nobodys_scratch_stays(scratch):
    alike = Path(tempfile.mkdtemp(prefix="hostkit."))
    (alike / "precious").write_text("")
    scratch.make()
    assert (alike / "precious").exists()
    (alike / "precious").unlink()
    alike.rmdir()


def test_a_full_directory_is_removed_and_links_in_it_are_not_followed(scratch, tmp_path, until):
    place = Path(scratch.make())
    (tmp_path / "precious").write_text("")
    (place / "deep" / "deeper").mkdir(parents=True)
    (place / "link").symlink_to(tmp_path)
    remove(str(place))
    until(lambda: not place.exists())
    assert (tmp_path / "precious").exists()


def test_a_fork_of_the_host_leaves_the_parents_directories_alone(scratch):
    place = scratch.make()
    child = os.fork()
    if child == 0:
        scratch.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.path.isdir(place)
