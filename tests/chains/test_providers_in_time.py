"""Providers that bear few calls, or are down, in virtual time: few calls are refused."""

from random import seed
from typing import Any

import pytest

from batchord.chains.runtime.retry import ONCE, RetryPolicy
from tests.support.virtual_provider import Provider

UNKNOWN = [
    # The provider, processes, slots of each, most that may be refused, and the seconds.
    (Provider(seconds=0.3, in_flight=8, retry_after=1.0), 1, 24, 0.05, 16),
    (Provider(seconds=0.3, in_flight=8, retry_after=0.5), 1, 24, 0.05, 15),
    (Provider(seconds=0.3, in_flight=8), 1, 24, 0.05, 24),
    (Provider(seconds=0.3, in_flight=8, retry_after=1.0), 2, 32, 0.05, 18),
    (Provider(seconds=0.1, in_flight=4), 1, 24, 0.05, 16),
    (Provider(seconds=0.1, in_flight=4), 3, 8, 0.05, 16),
    (Provider(seconds=1.0, in_flight=4), 3, 8, 0.05, 140),
    (Provider(seconds=0.3, in_flight=4), 16, 1, 0.05, 45),
    (Provider(seconds=0.3, in_flight=40), 16, 8, 0.05, 8),
    (Provider(seconds=0.02, a_second=10), 1, 500, 0.05, 80),
    (Provider(seconds=0.02, a_second=10), 3, 8, 0.10, 80),
    (Provider(seconds=0.02, a_second=10), 16, 1, 0.10, 120),
    (Provider(seconds=1.0, a_second=10), 3, 8, 0.05, 80),
]


@pytest.mark.parametrize(("provider", "processes", "slots", "share", "most"), UNKNOWN)
def test_what_a_provider_bears_is_found_with_few_refusals(
    provider: Provider, processes: int, slots: int, share: float, most: float
) -> None:
    seed(1)  # of the jitter
    count = 500 if provider.retry_after is None else 300
    seconds = provider.serve(count, processes=processes, slots=slots)
    assert provider.refused <= share * count
    assert seconds < most
    assert not provider.failed


# fmt: off
OUTAGES = [
    Provider(seconds=0.5, down=(10, 70), code="server_error"),
    Provider(seconds=0.5, down=(10, 70), code="connection_error", gives_up=0.001),
    Provider(seconds=0.5, down=(10, 70), code="rate_limited"),
    Provider(seconds=0.5, down=(10, 70), code="timeout", gives_up=5.0),
    Provider(seconds=0.1, down=(3, 63), code="server_error"),
    Provider(seconds=5.0, down=(30, 90), code="server_error", gives_up=1.0),
]
# fmt: on


@pytest.mark.parametrize("provider", OUTAGES, ids=lambda one: f"{one.code} {one.seconds:g} s")
def test_an_outage_of_a_minute_costs_few_calls_and_the_old_rate_is_soon_back(
    provider: Provider,
) -> None:
    seed(1)  # of the jitter
    slots = 24
    began, ended = provider.down
    rate = slots / provider.seconds
    provider.serve(int(rate * (began + 30)), processes=3, slots=slots // 3)
    assert sum(began <= at < ended for at in provider.calls) < 60
    assert not provider.failed
    # A probe that is under way as it ends has to be given up first.
    soon = ended + max(7.0, provider.gives_up + 5)
    back = sum(soon <= at < soon + 5 for at in provider.calls) / 5
    assert back > 0.8 * rate


THREE_TIMES = RetryPolicy(initial=0.1, cap=0.2)
#: Of how long it takes to fail, and whether small calls tell: what an item may meet as it ends.
# fmt: off
ENDS = [
    {"code": "timeout", "gives_up": 1.0},
    {"code": "timeout", "gives_up": 1.0, "flaps": True},
    {"code": "server_error", "gives_up": 0.3},
    {"code": "connection_error", "gives_up": 0.001, "flaps": True},
]
# fmt: on


@pytest.mark.parametrize("policy", [ONCE, THREE_TIMES], ids=["once", "three times"])
@pytest.mark.parametrize("probed", [True, False], ids=["probed", "not probed"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(map(str, end.values())))
def test_no_item_is_blamed_for_an_outage_at_whatever_moment_it_ends(
    end: dict[str, Any], probed: bool, policy: RetryPolicy
) -> None:
    seed(1)  # of the jitter
    more = dict(end)
    flaps = more.pop("flaps", False)
    for slots in (2, 3, 8):
        for ended in (1.0, 1.2, 1.6, 1.9, 2.2, 2.5):
            again = (ended + 0.8, ended + 2.8) if flaps else (-1.0, -1.0)
            provider = Provider(seconds=0.1, down=(0.5, ended), down_again=again, **more)
            provider.serve(slots * 40, processes=2, slots=slots, policy=policy, probed=probed)
            assert not provider.failed, f"it ended at {ended:.2f} with {slots} slots"


@pytest.mark.parametrize("policy", [ONCE, THREE_TIMES], ids=["once", "three times"])
@pytest.mark.parametrize("down", [(-1.0, -1.0), (1.0, 9.0)], ids=["", "outage"])
@pytest.mark.parametrize("probed", [True, False], ids=["probed", "not probed"])
def test_an_item_that_always_fails_among_others_ends_after_few_calls(
    probed: bool, down: tuple[float, float], policy: RetryPolicy
) -> None:
    provider = Provider(seconds=0.1, down=down, bad=150)
    provider.serve(2000, processes=2, slots=8, policy=policy, probed=probed)
    assert provider.failed == [150]
    assert provider.bad_calls <= 2 * policy.max_attempts + 4
