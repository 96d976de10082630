"""Who may do what."""

from __future__ import annotations

from fastapi import HTTPException, Request


async def require_admin(_request: Request) -> None:
    """Guards the admin routes, which do not exist without an admin key."""
    raise HTTPException(404)
