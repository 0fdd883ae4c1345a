"""Which assets a text speaks of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

NAMES = {
    "AAVE": ("aave",), "ADA": ("cardano",), "ALGO": ("algorand",), "APT": ("aptos",), "ARB": ("arbitrum",),
    "ATOM": ("cosmos hub",), "AVAX": ("avalanche",), "BCH": ("bitcoin cash",), "BNB": ("binance coin",),
    "BTC": ("bitcoin",), "DOGE": ("dogecoin",), "DOT": ("polkadot",), "EOS": (), "ETC": ("ethereum classic",),
    "ETH": ("ethereum", "ether"), "FIL": ("filecoin",), "HBAR": ("hedera",), "ICP": ("internet computer",),
    "INJ": ("injective",), "LDO": ("lido",), "LINK": ("chainlink",), "LTC": ("litecoin",), "MATIC": (),
    "MKR": ("makerdao",), "NEAR": ("near protocol",), "OP": (), "PEPE": ("pepecoin",), "POL": ("polygon",),
    "SHIB": ("shiba inu",), "SOL": ("solana",), "SUI": (), "TON": ("toncoin",), "TRX": ("tron",),
    "UNI": ("uniswap",), "VET": ("vechain",), "XLM": ("stellar lumens",), "XMR": ("monero",), "XRP": ("ripple",),
    "XTZ": ("tezos",), "ZEC": ("zcash",),
}  # fmt: skip
"""Assets by ticker, and the names that mean them and nothing else."""
WORDS_TOO = frozenset({
    "ACE", "AI", "ALL", "ANY", "API", "ARE", "ATH", "AUTO", "BAN", "BAR", "BIG", "BUY", "CAT", "CEO", "CFO", "CTO",
    "COW", "DAO", "DAY", "DEFI", "DOG", "ETF", "FED", "FOR", "FUN", "GAS", "GDP", "GO", "HIGH", "HOT", "ICE", "IPO",
    "IT", "KEY", "LAW", "LINK", "LOW", "MAGIC", "MASK", "ME", "NEAR", "NEW", "NFT", "NOT", "NOW", "ONE", "OP", "OUT",
    "PEOPLE", "POL", "POP", "SAND", "SEC", "SELL", "SUN", "THE", "TOP", "TON", "UNI", "UP", "US", "USA", "USD",
    "USDC", "USDT", "VIA", "WIN", "YOU",
})  # fmt: skip
"""Tickers that are also words or other abbreviations: only with a sign before them do they mean the asset."""
_MULTIPLE = re.compile(r"^(?:1000000|10000|1000|1M)(?=[A-Z])")
_SIGNED = re.compile(r"(?<![\w$#])[$#]([A-Za-z][A-Za-z0-9]{1,9})\b")
_BARE = re.compile(r"(?<![\w$#/.@-])([A-Z][A-Z0-9]{2,9})(?![\w@-])")
_LOUD = 0.6


def asset_of(symbol: str) -> str:
    """Return the ticker that a unified symbol trades: SHIB for 1000SHIB/USDT:USDT."""
    return _MULTIPLE.sub("", symbol.partition("/")[0].upper())


class Mentions:
    """Finds assets in texts by `$TICKER`, `#TICKER`, TICKER as a word of its own, and by name."""

    def __init__(self, assets: Iterable[str] = ()) -> None:
        self._tickers = frozenset(NAMES) | {one.upper() for one in assets}
        by_name = {name: ticker for ticker, names in NAMES.items() for name in names}
        longest_first = sorted(by_name, key=len, reverse=True)
        self._by_name = by_name
        self._name = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")

    def of(self, text: str) -> tuple[str, ...]:
        """Return the assets that a text speaks of, in order of their tickers."""
        plain = unicodedata.normalize("NFKC", text)
        found = {sign.upper() for sign in _SIGNED.findall(plain)}
        # In a text that shouts, capitals say nothing.
        letters = [sign for sign in plain if sign.isalpha()]
        if letters and sum(sign.isupper() for sign in letters) < _LOUD * len(letters):
            found |= set(_BARE.findall(plain)) - WORDS_TOO
        found &= self._tickers
        found |= {self._by_name[name] for name in self._name.findall(plain.lower())}
        return tuple(sorted(found))
