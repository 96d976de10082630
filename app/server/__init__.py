"""Sockets, connections and worker processes: everything around the application that an ASGI server does.

start.py -> checks the settings and binds the address, before there is a worker
supervisor.py -> starts the workers, replaces those that die, passes signals on
runtime_folder.py -> the private folder that the workers share
first_process.py -> what falls to the first process of a container
worker.py -> one worker process
uvicorn_server.py -> runs the application in a process, and drains it on SIGTERM
acceptor.py -> takes new connections, shared evenly among the workers
tls.py -> certificates and keys for HTTPS
connection/ -> one connection: its bytes, limits and answers

All of it can be left out: any ASGI server can run `app.main:create_app`.
May import `main` and everything below it; only `__main__` imports it.
"""
