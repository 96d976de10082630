"""One connection, from its acceptance to its end: what uvicorn's HTTP protocol does, and the limits that it lacks.

connections.py -> how many connections are open, and which one is closed for a new one
handshakes.py -> a connection until it is encrypted
read_ahead.py -> parses a few requests ahead, and leaves the rest in the socket
parsing_turns.py -> whose bytes take long to parse waits for its turn
http_protocol.py -> the bytes of one connection: limits, deadlines, keep-alive
unread_answers.py -> a connection whose answers are not read waits, and ends
reading_pace.py -> how much of what was written a client has taken
upgrade_offers.py -> declines offers to speak another protocol (`Upgrade: h2c`)
uvicorn_names.py -> lists what is taken from inside uvicorn
early_refusal.py -> answers 503 ahead of the application when there is no room
joined_writes.py -> sends the head and the body of an answer in one write
"""
