"""Sockets, connections and worker processes: everything around the application that an ASGI server does.

supervisor.py -> binds the address, starts the workers, replaces those that die, passes signals on
runtime_folder.py -> the private folder that the workers share
first_process.py -> what falls to the first process of a container
worker.py -> one worker process
uvicorn_server.py -> runs the application in a process, and drains it on SIGTERM
acceptor.py -> takes new connections, shared evenly among the workers
tls.py -> certificates and keys for HTTPS
connections.py -> how many connections are open, and which one is closed for a new one
read_ahead.py -> parses a few requests ahead, and leaves the rest in the socket
http_protocol.py -> the bytes of one connection: limits, deadlines, keep-alive
unread_answers.py -> a connection whose answers are not read waits, and ends
reading_pace.py -> how much of what was written a client has taken
upgrade_offers.py -> declines offers to speak another protocol (`Upgrade: h2c`)
uvicorn_names.py -> lists what is taken from inside uvicorn
early_refusal.py -> answers 503 ahead of the application when there is no room
joined_writes.py -> sends the head and the body of an answer in one write

All of it can be left out: any ASGI server can run `app.main:create_app`.
May import `main` and everything below it; only `__main__` imports it.
"""
