"""Replay: the audit log decided again, under another policy or by another guard."""
