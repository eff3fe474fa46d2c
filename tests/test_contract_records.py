from __future__ import annotations

import copy
import json
import pickle
import sys
import threading
import time
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostkit
from hostkit import CallCancelled, CallTimeout, ExecutionContext, HealthStatus, Plugin, PluginInfo, Status
from hostkit._contract import Caller

INFO = PluginInfo("calculator", "1.0", "adds", "me", ["math"], {"a": [1]})
HEALTH = HealthStatus(Status.DEGRADED, "slow", 100.0, 0.5, {"queue": 3})


def test_the_defaults_of_the_records_are_the_documented_ones():
    info = PluginInfo("n")
    assert (info.version, info.description, info.author, info.capabilities, info.metadata) == ("", "", "", (), {})
    before = time.time()
    health = HealthStatus()
    assert before <= health.last_check <= time.time()
    assert (health.status, health.message, health.response_time, health.metadata) == (Status.HEALTHY, "", 0.0, {})
    with pytest.raises(TypeError):
        PluginInfo()


@pytest.mark.parametrize("record", [INFO, HEALTH], ids=["info", "health"])
def test_a_record_can_not_be_changed(record):
    for name in [*record._fields(), "another"]:
        with pytest.raises(AttributeError, match="is immutable"):
            setattr(record, name, "x")
        with pytest.raises(AttributeError, match="is immutable"):
            delattr(record, name)
    with pytest.raises(TypeError):
        record.metadata["new"] = 1
    assert not hasattr(record, "__dict__")


def test_a_record_does_not_change_with_what_it_was_made_of():
    capabilities, metadata = ["a"], {"k": 1}
    info = PluginInfo("n", capabilities=capabilities, metadata=metadata)
    capabilities.append("b")
    metadata["l"] = 2
    assert info.capabilities == ("a",)
    assert info.metadata == {"k": 1}
    info._fields()["metadata"]["m"] = 3
    assert info.metadata == {"k": 1}


@pytest.mark.parametrize("record", [INFO, HEALTH], ids=["info", "health"])
def test_a_copy_of_a_record_is_equal_to_it(record):
    copies = [
        copy.copy(record),
        copy.deepcopy(record),
        pickle.loads(pickle.dumps(record)),
        record.__replace__(),
        eval(repr(record), {"PluginInfo": PluginInfo, "HealthStatus": HealthStatus, "Status": Status})
        if record is INFO
        else record,
    ]
    for other in copies:
        assert other == record
        assert hash(other) == hash(record)
        assert repr(other) == repr(record)
        assert type(other.metadata) is MappingProxyType


def test_a_copy_may_differ_in_some_fields():
    other = INFO.__replace__(version="2.0", metadata={})
    assert (other.name, other.version, other.metadata) == ("calculator", "2.0", {})
    assert other != INFO
    with pytest.raises(TypeError):
        INFO.__replace__(colour="red")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace came with Python 3.13")
def test_copy_replace_works():
    assert copy.replace(HEALTH, message="fast") == HealthStatus(Status.DEGRADED, "fast", 100.0, 0.5, {"queue": 3})


def test_records_are_equal_by_their_fields_and_kind():
    assert PluginInfo("n", capabilities=["a"]) == PluginInfo("n", capabilities=("a",))
    assert PluginInfo("n") != PluginInfo("m")
    assert PluginInfo("n") != HealthStatus()
    assert PluginInfo("n") != "n"
    assert PluginInfo("n") != {"name": "n"}
    assert HealthStatus(last_check=1) != HealthStatus(last_check=2)


@given(st.dictionaries(st.text(), st.integers() | st.lists(st.integers()) | st.booleans()))
def test_equal_records_have_the_same_hash(metadata):
    one = PluginInfo("n", metadata=metadata)
    other = PluginInfo("n", metadata=dict(reversed(metadata.items())))
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1


def test_a_record_is_shown_with_its_fields():
    assert "name='calculator'" in repr(INFO)
    assert "capabilities=('math',)" in repr(INFO)
    assert "metadata={'a': [1]}" in repr(INFO)
    assert "message='slow'" in repr(HEALTH)


def test_a_record_of_a_subclass_has_the_fields_of_both():
    class More(PluginInfo):
        __slots__ = ("extra",)

        def __init__(self, name, extra=0, **fields):
            super().__init__(name, **fields)
            self._fill(extra=extra)

    record = More("n", extra=5, version="1")
    assert (record.extra, record.version) == (5, "1")
    assert record == More("n", extra=5, version="1")
    assert record != More("n", extra=6, version="1")
    assert record != PluginInfo("n", version="1")
    assert copy.copy(record) == record


def test_what_is_no_list_of_words_or_no_status_is_refused():
    with pytest.raises(TypeError, match="list of words"):
        PluginInfo("n", capabilities="math")
    with pytest.raises(ValueError, match="fine"):
        HealthStatus("fine")
    with pytest.raises(ValueError):
        HealthStatus(last_check="now")
    assert HealthStatus("degraded").status is Status.DEGRADED
    assert HealthStatus(last_check=5).last_check == 5.0


def test_the_fields_of_records_are_json_data():
    assert json.loads(json.dumps(INFO._fields()))["capabilities"] == ["math"]
    assert json.loads(json.dumps({**HEALTH._fields(), "status": HEALTH.status.value}))["metadata"] == {"queue": 3}


def test_the_statuses_are_the_documented_ones():
    assert [status.value for status in Status] == ["unknown", "healthy", "degraded", "unhealthy", "offline"]
    assert Status("healthy") is Status.HEALTHY
    assert pickle.loads(pickle.dumps(Status.HEALTHY)) is Status.HEALTHY


# The context of a call.


def test_a_context_has_what_the_caller_passed():
    ctx = ExecutionContext("id", 5.0, 3, {"h": "v"}, {"m": [1]})
    assert (ctx.request_id, ctx.timeout, ctx.max_retries, ctx.attempt) == ("id", 5.0, 3, 1)
    assert ctx.headers == {"h": "v"}
    assert ctx.metadata == {"m": [1]}
    assert repr(ctx) == "ExecutionContext(request_id='id', timeout=5.0, attempt=1)"


def test_a_context_without_anything_is_without_limit():
    ctx = ExecutionContext()
    assert (ctx.request_id, ctx.timeout, ctx.max_retries) == ("", None, 0)
    assert ctx.headers == ctx.metadata == {}
    assert ctx.remaining() is None
    assert not ctx.cancelled
    ctx.raise_if_cancelled()


@pytest.mark.parametrize(
    "name", ["request_id", "timeout", "max_retries", "attempt", "headers", "metadata", "cancelled", "logger", "anything"]
)
def test_a_context_is_read_only(name):
    ctx = ExecutionContext("id", headers={"a": "b"}, metadata={"a": 1})
    with pytest.raises(AttributeError):
        setattr(ctx, name, 1)


def test_the_mappings_of_a_context_are_read_only_and_of_its_own():
    headers, metadata = {"a": "b"}, {"a": 1}
    ctx = ExecutionContext(headers=headers, metadata=metadata)
    for mapping in (ctx.headers, ctx.metadata):
        with pytest.raises(TypeError):
            mapping["new"] = 1
        assert isinstance(dict(mapping), dict)
    seen = ctx.headers
    headers["c"] = "d"
    assert seen == {"a": "b"}


def test_the_time_that_remains_goes_down_and_never_below_nothing():
    ctx = ExecutionContext(timeout=100.0)
    first = ctx.remaining()
    assert 99.0 < first <= 100.0
    assert ctx.remaining() <= first
    late = ExecutionContext(timeout=0.0)
    assert late.remaining() == 0.0
    assert late.cancelled
    with pytest.raises(CallTimeout, match="0.0 s are over"):
        late.raise_if_cancelled()


def test_a_cancelled_context_raises_what_the_caller_did():
    ctx = ExecutionContext("id", timeout=0.0, _caller=Caller("echo", "p-"))
    ctx._cancelled = True
    with pytest.raises(CallCancelled) as caught:
        ctx.raise_if_cancelled()
    assert (caught.value.plugin, caught.value.request_id) == ("echo", "id")


def test_a_cancellation_is_seen_from_every_thread():
    ctx, seen = ExecutionContext(), []
    go = threading.Event()

    def look():
        go.wait(5)
        seen.append(ctx.cancelled)

    thread = threading.Thread(target=look)
    thread.start()
    ctx._cancelled = True
    go.set()
    thread.join(5)
    assert seen == [True]


def test_an_id_that_the_host_counted_has_the_hosts_prefix():
    assert ExecutionContext(255, _caller=Caller("echo", "abcd-")).request_id == "abcd-ff"
    assert ExecutionContext("own", _caller=Caller("echo", "abcd-")).request_id == "own"


def test_the_logger_of_a_context_knows_plugin_and_call():
    ctx = ExecutionContext("id-5", _caller=Caller("echo", ""))
    assert ctx.logger.logger.name == "hostkit.plugin.echo"
    assert ctx.logger.extra == {"plugin": "echo", "request_id": "id-5"}


# The contract class.


def test_the_contract_has_a_default_for_everything_but_execute():
    plugin = Plugin()
    assert plugin.health().status is Status.HEALTHY
    assert plugin.info() is None
    assert plugin.close() is None
    with pytest.raises(NotImplementedError, match=r"Plugin must define execute\(ctx, request\)"):
        plugin.execute(ExecutionContext(), {})


def test_the_contract_class_takes_its_types_in_brackets():
    class Calculator(Plugin[int, str]):
        pass

    assert Calculator.__orig_bases__[0].__args__ == (int, str)
    assert issubclass(Calculator, Plugin)
    assert Calculator.__mro__[1] is Plugin


def test_a_hook_is_marked_as_pluggy_would_mark_it():
    pluggy = pytest.importorskip("pluggy")
    marker = pluggy.HookimplMarker("hostkit")
    for options in ({}, {"tryfirst": True}, {"trylast": True, "specname": "other"}, {"wrapper": True}, {"optionalhook": True}):

        def ours():
            yield

        def theirs():
            yield

        hostkit.hookimpl(**options)(ours)
        marker(**options)(theirs)
        assert ours.hostkit_impl == theirs.hostkit_impl

    @hostkit.hookimpl
    def bare(): ...

    assert set(bare.hostkit_impl) == set(theirs.hostkit_impl)
    with pytest.raises(TypeError, match="hookimpl has no option 'first'"):
        hostkit.hookimpl(first=True)
