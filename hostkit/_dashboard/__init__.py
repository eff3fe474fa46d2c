"""A running host in a browser: a process of its own that looks at the host through its admin socket. Needs starlette and uvicorn.

    host ══ admin socket ══ poller ─► rows, points ─► browsers' mailboxes ─► server-sent events ─► page
      ▲                                                                                             │
      └── a thread a question ◄── routes ◄── guard (host name, origin, token) ◄── fetch ──────┘

One poller serves all browsers; whatever is kept has a bound.
"""
