"""Data sets on disk: files in, streamed points out, and the sample that travels with the project."""
