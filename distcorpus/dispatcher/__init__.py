"""The dispatcher: sessions, rounds, the schedule and the front doors (imports algorithms and wire)."""
