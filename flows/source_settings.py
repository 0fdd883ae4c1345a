"""What the environment says of other sources: which are asked, where they are, and their keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_store.context.coingecko import CoinGecko
from feature_store.context.mentions import Mentions
from feature_store.context.rss import Feed
from feature_store.context.social import LONGEST_QUERY, Posts
from feature_store.context.source import Source
from feature_store.context.texts import Texts
from feature_store.context.web import Web
from feature_store.errors import BadInputError

SourceName = Literal["coingecko", "rss", "social"]
NAMES: tuple[str, ...] = get_args(SourceName)
_PRO_HOST = "pro-api.coingecko.com"


class SourceSettings(BaseSettings):
    """The environment of other sources; none of them is asked unless it is named in QT_SOURCES."""

    model_config = SettingsConfigDict(env_prefix="QT_", extra="ignore", frozen=True)

    sources: str = ""
    # Whether flows run by themselves, sources among them; prefect.yaml and `qtctl up` read it too.
    schedules: bool = True
    coingecko_url: str = "https://api.coingecko.com/api/v3"
    coingecko_key: SecretStr = SecretStr("")
    # How many coins, by capitalisation; and single ones beside them, as `id:TICKER`, separated by commas.
    coingecko_largest: int = Field(default=250, ge=1, le=5_000)
    coingecko_coins: str = ""
    rss_feeds: str = ""
    social_url: str = "https://api.x.com/2"
    social_token: SecretStr = SecretStr("")
    social_query: str = Field(
        default="(bitcoin OR ethereum OR crypto) lang:en -is:retweet", min_length=1, max_length=LONGEST_QUERY
    )

    @classmethod
    def of(cls, **chosen: object) -> Self:
        """
        Read the environment; what a flow was told (anything but None) wins over it.

        Raises:
            BadInputError: A value is not usable.
        """
        try:
            return cls(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            # What was found is not told: it may be a key.
            problems = "; ".join(f"QT_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors())
            raise BadInputError(f"Unusable settings: {problems}") from None

    def chosen(self) -> tuple[str, ...]:
        """
        Return the kinds of sources that are asked.

        Raises:
            BadInputError: One is not a kind of source.
        """
        names = tuple(dict.fromkeys(_words(self.sources)))
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            raise BadInputError(f"Unknown source {unknown[0]!r}; set QT_SOURCES to some of: {', '.join(NAMES)}")
        return names

    def build(self, assets: Iterable[str]) -> tuple[Source, ...]:
        """
        Return the chosen sources; texts are searched for these assets and the best known ones.

        Raises:
            BadInputError: One that is chosen lacks a setting.
        """
        texts = Texts(Mentions(assets))
        found: list[Source] = []
        for name in self.chosen():
            match name:
                case "coingecko":
                    found.append(CoinGecko(self._market_data(), self.coingecko_largest, self._coins()))
                case "rss":
                    found += [Feed(Web(address), texts) for address in self._feeds()]
                case _:
                    found.append(Posts(self._network(), self.social_query, texts))
        return tuple(found)

    def _market_data(self) -> Web:
        key = self.coingecko_key.get_secret_value()
        header = "x-cg-pro-api-key" if urlsplit(self.coingecko_url).hostname == _PRO_HOST else "x-cg-demo-api-key"
        return Web(self.coingecko_url, {header: key} if key else {})

    def _coins(self) -> dict[str, str]:
        pairs = [one.partition(":") for one in _words(self.coingecko_coins)]
        if wrong := [one for one, _, ticker in pairs if not one or not ticker]:
            raise BadInputError(f"Expected QT_COINGECKO_COINS as id:TICKER,id:TICKER, found {wrong[0]!r}")
        return {one: ticker.upper() for one, _, ticker in pairs}

    def _feeds(self) -> tuple[str, ...]:
        feeds = tuple(dict.fromkeys(_words(self.rss_feeds)))
        if not feeds:
            raise BadInputError("The source rss needs feeds: set QT_RSS_FEEDS to their addresses, separated by commas")
        return feeds

    def _network(self) -> Web:
        token = self.social_token.get_secret_value()
        if not token:
            raise BadInputError("The source social needs a bearer token: set QT_SOCIAL_TOKEN")
        return Web(self.social_url, {"Authorization": f"Bearer {token}"})


def schedule() -> dict[str, bool]:
    """Tell a deployment whether its schedule is active: only where sources are chosen, and schedules are not paused."""
    settings = SourceSettings.of()
    return {"active": bool(settings.chosen()) and settings.schedules}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
