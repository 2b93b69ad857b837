"""What can be done about an event that could not become a row. Pure: bytes in, bytes or facts out.

`place` finds where a payload is wrong, `repair` makes another payload of it, `release` says how a
released event is marked on the log, and `causes` counts why events are in quarantine.
"""
