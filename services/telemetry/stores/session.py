"""The HTTP session that the SDK's exporters use: no more of an answer is read than a receiver of OTLP has to say."""

from typing import Any

import requests

MOST_ANSWER_BYTES = 64 * 1024


class _Session(requests.Session):
    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """OTEL_EXPORTER_OTLP_CERTIFICATE wins over REQUESTS_CA_BUNDLE; of itself a session has it the other way round."""
        return super().request(*args, **{"verify": None if self.verify is True else self.verify} | kwargs)


class Answers:
    """status: of the last answer, 0 when there was none."""

    def __init__(self) -> None:
        self.status = 0
        self.session = _Session()
        self.session.stream = True  # else all of an answer is read, as long as it comes
        self.session.hooks["response"].append(self._came)

    def _came(self, response: requests.Response, *args: object, **kwargs: object) -> None:
        """A short answer is read, so that its connection can be used again; any other is closed."""
        self.status = response.status_code
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) <= MOST_ANSWER_BYTES and "Content-Encoding" not in response.headers:
            _ = response.content
        else:
            response.close()
