"""ccxt loaded name by name is ccxt: the same classes, and only those that were asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _fresh(program: str) -> str:
    """Return what a program prints in an interpreter that has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("pro", [True, False], ids=["streaming", "rest"])
@pytest.mark.parametrize(
    ("venue", "url", "base", "classes"),
    [
        ("sandbox", "http://127.0.0.1:1", "binance", {"binance", "binanceusdm"}),
        ("binanceusdm", None, "binance", {"binance", "binanceusdm"}),
        ("binance", None, "binance", {"binance"}),
        ("bitfinex", None, "bitfinex", {"bitfinex"}),
    ],
)
def test_one_venue_loads_one_family_of_exchanges(venue, url, base, classes, pro):
    """A client of one venue loads the modules of that venue's exchange, and of no other."""
    printed = _fresh(f"""
import sys
from feature_store.venue.factory import create_exchange
client = create_exchange({venue!r}, url={url!r}, pro={pro})
import ccxt
assert isinstance(client, ccxt.async_support.{base}), type(client).__mro__
assert isinstance(client, ccxt.async_support.Exchange)
assert type(client).__module__.startswith('ccxt.{"pro" if pro else "async_support"}.')
loaded = {{m.split('.')[-1] for m in sys.modules if m.startswith(('ccxt.pro.', 'ccxt.async_support.'))}}
from pathlib import Path
known = {{p.stem for p in Path(ccxt.__path__[0]).glob('*.py')}} - {{'__init__'}}
print(*sorted(loaded & known))
""")

    assert set(printed.split()) == classes


def test_every_name_of_ccxt_is_still_there():
    """Whatever the whole packages offer, the light ones offer too, and it is the same object."""
    printed = _fresh("""
import importlib
from feature_store.venue.ccxt_package import ccxt
client = ccxt.pro.binanceusdm({})
early = (ccxt.NetworkError, ccxt.pro.binance, ccxt.async_support.binanceusdm, ccxt.Exchange)
everything = [(m, n) for m in (ccxt, ccxt.async_support, ccxt.pro) for n in m.exchanges]
assert all(isinstance(getattr(module, name), type) for module, name in everything)
assert early == (ccxt.NetworkError, ccxt.pro.binance, ccxt.async_support.binanceusdm, ccxt.Exchange)
assert isinstance(client, ccxt.pro.binanceusdm)
assert issubclass(ccxt.RateLimitExceeded, ccxt.BaseError)
assert ccxt.__version__ == ccxt.pro.__version__ and ccxt.Precise.string_add('1', '2') == '3'
print(len(everything) > 150)
""")

    assert printed == "True"


def test_the_light_packages_say_their_version_and_names():
    """What a package says of itself is told before anything else was asked for, as by the whole one."""
    printed = _fresh("""
from importlib.metadata import version
from feature_store.venue.ccxt_package import ccxt
print(ccxt.__version__ == ccxt.pro.__version__ == ccxt.async_support.__version__ == version("ccxt"))
from ccxt import *
print(issubclass(NetworkError, BaseError), isinstance(bitfinex, type))
""")

    assert printed.split() == ["True"] * 3


def test_an_unknown_name_is_an_attribute_error():
    """A name that ccxt does not have is missing in the usual way."""
    printed = _fresh("""
from feature_store.venue.ccxt_package import ccxt
print(hasattr(ccxt, 'no_such_exchange'), hasattr(ccxt, '__no_such_name__'))
""")

    assert printed == "False False"


@pytest.mark.parametrize("before", ["ccxt", "ccxt.async_support", "ccxt.pro"])
def test_ccxt_imported_earlier_is_kept(before):
    """Where ccxt was imported whole before us, its classes stay the ones that are raised and caught."""
    printed = _fresh(f"""
import {before}, ccxt as whole
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import ccxt as seen
from feature_store.venue.factory import create_exchange
client = create_exchange("bitfinex")
print(ccxt is whole, seen.BaseError is whole.BaseError, isinstance(client, ccxt.pro.bitfinex))
""")

    assert printed == "True True True"


@pytest.mark.parametrize("venue", ["binanceusdm", "bitfinex"])
def test_a_client_that_rounds_leaves_the_decimals_of_its_thread_alone(venue):
    """With each price that it writes ccxt sets how decimals round; ours, in the same thread, go on as before."""
    printed = _fresh(f"""
from decimal import getcontext
from feature_store.venue.factory import create_exchange
from ccxt.base.decimal_to_precision import DECIMAL_PLACES, ROUND
client, before = create_exchange("{venue}", pro=False), repr(getcontext())
print(client.decimal_to_precision("0.05", ROUND, 1, DECIMAL_PLACES), repr(getcontext()) == before)
""")

    assert printed == "0.1 True"
