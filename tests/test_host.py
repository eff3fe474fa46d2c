"""The host beyond single calls: who decides, what is refused, and how it ends."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from loguru import logger

import hostkit

WHERE = """
    import os

    class P:
        def execute(self, ctx, request):
            return os.getpid()
"""


def is_isolated(host, name="p"):
    return host.execute(name, None) != os.getpid()


def test_a_plugin_without_a_wish_runs_in_process(install, host):
    install("p", WHERE)
    assert not is_isolated(host)


def test_the_manifest_may_ask_for_a_worker_and_the_application_may_say_no(install, new_host):
    install("p", WHERE, manifest='isolation = "process"')
    assert is_isolated(new_host())
    host = new_host()
    host.load("p", isolation="none")
    assert not is_isolated(host)


def test_the_operators_floor_holds_against_the_application(install, new_host):
    install("p", WHERE)
    host = new_host(config={"plugins": {"p": {"isolation": "process"}}})
    with pytest.raises(hostkit.ConfigError, match="below what the operator demands"):
        host.load("p", isolation="none")
    assert is_isolated(host)


def test_the_operators_none_does_not_take_away_what_the_manifest_asks_for(install, new_host):
    install("p", WHERE, manifest="isolation = true")
    assert is_isolated(new_host(config={"plugins": {"p": {"isolation": "none"}}}))


def test_a_reload_moves_a_plugin_and_it_stays_there(install, host):
    install("p", WHERE)
    assert not is_isolated(host)
    host.reload("p", isolation="process")
    assert is_isolated(host)
    host.reload("p")
    assert is_isolated(host)
    host.reload("p", isolation="none")
    assert not is_isolated(host)


def test_loading_a_loaded_plugin_elsewhere_says_to_reload(install, host):
    install("p", WHERE)
    host.load("p")
    host.load("p")
    with pytest.raises(hostkit.ConfigError, match="use reload"):
        host.load("p", isolation="process")


def test_an_unknown_isolation_names_the_known_ones(install, host):
    install("p", WHERE)
    with pytest.raises(hostkit.ConfigError, match="expected one of none, auto, process"):
        host.load("p", isolation="proces")


def test_an_unknown_plugin_gets_a_did_you_mean(install, host):
    install("calculator", WHERE)
    with pytest.raises(hostkit.PluginNotFound, match="did you mean 'calculator'"):
        host.execute("calculater", None)
    with pytest.raises(hostkit.PluginNotFound):
        host.plugin("../calculator")


def test_a_disabled_plugin_is_not_found(install, new_host):
    install("p", WHERE)
    with pytest.raises(hostkit.PluginNotFound, match="disabled"):
        new_host(config={"plugins": {"p": {"enabled": False}}}).execute("p", None)


def test_a_plugin_that_is_installed_while_the_host_runs_is_found(install, host):
    assert "p" not in host.specs
    install("p", WHERE)
    assert not is_isolated(host)


def test_limits_that_nothing_holds_are_told_and_refused_where_the_operator_wants(install, new_host, log):
    install("p", WHERE, manifest="[resources]\nmax_memory_mb = 64")
    host = new_host()
    host.execute("p", None)
    assert any("nothing can hold its limits" in row["text"] and row["plugin"] == "p" for row in log)
    assert "isolate it" in host.info("p").metadata["hostkit"]["warning"]
    strict = new_host(config={"defaults": {"require_enforcement": True}})
    with pytest.raises(hostkit.SandboxUnavailable):
        strict.execute("p", None)
    strict.load("p", isolation="process")
    assert "warning" not in strict.info("p").metadata["hostkit"]


def test_a_plugins_limits_hold_in_its_worker(install, host):
    install(
        "p",
        """
        import os, resource

        class P:
            def execute(self, ctx, request):
                memory = resource.getrlimit(resource.RLIMIT_DATA)
                return {"memory": memory, "files": resource.getrlimit(resource.RLIMIT_NOFILE), "cores": len(os.sched_getaffinity(0)),
                        "core file": resource.getrlimit(resource.RLIMIT_CORE), "threads": os.environ["OMP_NUM_THREADS"]}
        """,
        manifest="""
        isolation = "process"
        [resources]
        max_memory_mb = 256
        max_cpu_cores = 1
        max_open_files = 64
        """,
    )
    assert host.execute("p", None) == {
        "memory": [256 << 20, 256 << 20],
        "files": [64, 64],
        "cores": 1,
        "core file": [0, 0],
        "threads": "1",
    }


def test_declared_concurrency_holds_in_process_too(install, new_host):
    install(
        "p",
        """
        import threading

        class P:
            def __init__(self):
                self.lock = threading.Lock()
                self.now = self.most = 0
            def execute(self, ctx, request):
                with self.lock:
                    self.now += 1
                    self.most = max(self.most, self.now)
                threading.Event().wait(0.01)
                with self.lock:
                    self.now -= 1
                return self.most
    """,
        manifest="concurrency = 2",
    )
    host = new_host()
    futures = [host.submit("p", None) for _ in range(12)]
    assert max(future.result(30) for future in futures) == 2


def test_whoever_waits_too_long_for_a_turn_is_told_that_the_plugin_is_busy(install, new_host, isolation):
    install(
        "p",
        """
        class P:
            def execute(self, ctx, request):
                if request is not None:
                    open(request, "w").close()
                    while not ctx.cancelled:
                        pass
    """,
        manifest="concurrency = 1",
    )
    host = new_host(config={"defaults": {"cancel_grace": 5}})
    host.load("p", isolation=isolation)
    started = os.path.join(os.environ["XDG_CACHE_HOME"], "started")
    first = host.submit("p", started, timeout=1.5)
    while not os.path.exists(started):
        pass
    with pytest.raises(hostkit.Busy) as caught:
        host.execute("p", None, timeout=0.05)
    assert caught.value.phase == "queue"
    assert isinstance(first.exception(10), (hostkit.CallTimeout, type(None)))
    assert host.execute("p", None) is None


def test_many_threads_that_want_an_unloaded_plugin_load_it_once(install, host, tmp_path):
    install(
        "p",
        f"""
        class P:
            def __init__(self):
                with open({str(tmp_path / "made")!r}, "a") as file:
                    file.write("x")
            def execute(self, ctx, request): ...
    """,
    )
    threads = [threading.Thread(target=host.execute, args=("p", None)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "made").read_text() == "x"


def test_a_host_that_is_closed_while_a_plugin_loads_keeps_nothing(install, host, isolation):
    install("p", "import threading\nthreading.Event().wait(0.2)\nclass P:\n    def execute(self, ctx, request): ...\n")
    loading = threading.Thread(target=lambda: pytest.raises(hostkit.HostkitError, host.load, "p", isolation=isolation))
    loading.start()
    host.close()
    loading.join()
    with pytest.raises(hostkit.PluginClosed):
        host.execute("p", None)


def test_required_plugins_are_loaded_first(install, host):
    install("app", WHERE, manifest='[requirements]\nrequired_plugins = ["store>=1.0"]')
    install("store", WHERE)
    host.load("app")
    assert list(host.health()) == ["store", "app"]


def test_development_is_patient_and_talks(install, site):
    install("p", "class P:\n    def execute(self, ctx, request): return ctx.timeout\n")
    said = []
    handler = logger.add(lambda message: said.append(str(message)), level="INFO")
    try:
        with hostkit.Host.development() as host:
            assert host.execute("p", None) == 600.0
        with hostkit.Host.development(config={"defaults": {"timeout": 5}}) as host:
            assert host.execute("p", None) == 5.0
    finally:
        logger.remove(handler)
        logger.disable("hostkit")
    assert any("loaded" in line for line in said)


def test_quiet_is_the_default(install, host, capfd):
    install("p", WHERE)
    host.execute("p", None)
    host.reload("p", isolation="process")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("app", ["", "a/b", "a\nb"])
def test_an_application_has_a_proper_name(app):
    with pytest.raises(hostkit.ConfigError, match="app"):
        hostkit.Host(app)


def test_an_awaited_first_call_loads_without_blocking_the_loop(install, host, isolation):
    install("p", "import threading\nthreading.Event().wait(0.2)\nclass P:\n    def execute(self, ctx, request): return 1\n")
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.01)

    async def main():
        ticking = asyncio.ensure_future(tick())
        answer = await host.aexecute("p", None)
        ticking.cancel()
        return answer

    assert asyncio.run(main()) == 1
    assert len(ticks) > 3
