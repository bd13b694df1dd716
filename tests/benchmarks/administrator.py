"""Who changes what a server of one model serves, for benchmarks that do so while others ask."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


class Administrator:
    """One connection with an admin key."""

    def __init__(self, url: str, secret: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0)
        self._headers = {"Content-Type": "application/json", "X-API-Key": secret}
        self._model = self._send("GET", "/v1/models")["models"][0]["name"]

    def load(self, bundle: str) -> None:
        """Have a bundle replace the model, and wait for it."""
        assert self._send("POST", "/admin/models", {"bundle": bundle, "wait": True})["state"] == "serving"

    def change_labels(self, **body: Any) -> None:
        """Change the model's labels."""
        self._send("POST", f"/admin/models/{self._model}/labels", body)

    def ask(self, text: str, k: int = 5) -> list[str]:
        """The labels of a text."""
        answer = self._send("POST", "/predict", {"queries": [text], "k": k})
        return [label["id"] for label in answer["predictions"][0]["labels"]]

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        response = self._connection.getresponse()
        content = json.loads(response.read())
        assert response.status == 200, content
        return content
