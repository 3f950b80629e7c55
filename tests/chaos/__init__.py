"""The fault suite: every fault under load, each ending in an exact account by id."""
