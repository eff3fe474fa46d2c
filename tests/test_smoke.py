from __future__ import annotations

ECHO = """
    class P:
        def execute(self, ctx, request):
            return request
"""


def test_a_plugin_answers_the_same_wherever_it_runs(install, host, isolation):
    install("echo", ECHO)
    host.load("echo", isolation=isolation)
    assert host.execute("echo", {"a": [1, 2.5, None, "é"]}) == {"a": [1, 2.5, None, "é"]}
