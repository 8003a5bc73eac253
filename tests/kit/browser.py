"""As much of a browser as cookies need."""

from dataclasses import dataclass, field

from lagwise import CausalToken
from lagwise._client.cookies import Jar
from lagwise._decide.token import merged


@dataclass
class Browser:
    """As much of RFC 6265 as matters: cookies by name, overwritten, removed by Max-Age=0, sent all together."""

    cookies: dict[str, str] = field(default_factory=lambda: {"session": "theirs", "lagwise-theme": "dark"})

    def header(self) -> str:
        """What a request brings."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def store(self, set_cookies: list[str]) -> None:
        """What an answer sets and removes."""
        for cookie in set_cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if "; Max-Age=0;" in cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    def carries(self) -> CausalToken:
        """What the server makes of the cookies."""
        return merged(CausalToken.parse(value) for _, value in Jar().brought(self.header(), 1024))
