"""Tests of the pure core: no broker, no server, no network."""
