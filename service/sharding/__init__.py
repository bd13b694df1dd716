"""Bundles whose tables are cut into shards: what is found in all, merged to what one bundle would have found."""
