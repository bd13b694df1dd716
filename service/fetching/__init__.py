"""Fetching bundles: `fetch` puts one in its place, `archive` brings its files."""

from __future__ import annotations

from service.fetching.fetch import Fetched, Order, fetch

__all__ = ["Fetched", "Order", "fetch"]
