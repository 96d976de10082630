"""Who may change the service: nobody, as long as there are no admin keys."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, HTTPException, Request


async def require_admin(_request: Request) -> None:
    """Guards a route that changes the service: `Depends(require_admin)`.

    Raises:
        HTTPException: 404, as if there were no such route.
    """
    raise HTTPException(404)


def add_admin_routes(app: FastAPI, router: APIRouter) -> None:
    """Adds routes for admins, which nothing tells of."""
    app.include_router(router, include_in_schema=False)
