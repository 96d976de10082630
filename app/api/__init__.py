"""HTTP as clients see it: routes, uploads, schemas, problems, keys.

middleware.py -> every request: its id, its log line, its metrics, its timings
security_headers.py -> headers that every answer carries
cross_origin.py -> what pages of other origins may send and read
auth.py, keys.py -> whose API key it is, and what that key may do
predict.py -> the prediction routes
classifying_route.py -> a route that FastAPI documents and stays out of
answering.py -> the one way of a request with images: room, reading, permits, deadline
bodies/ -> reads the images of a request, within the limits
disconnect.py -> stops the work for a client that has left
answers.py -> shapes the results of the native routes, bounds them, and sends them in pieces
schemas.py -> the JSON of requests and answers
problems.py -> errors as `application/problem+json`
models.py -> the routes that describe, load and unload models
health.py -> probes and metrics
pages.py -> the pages for people, `/` and `/docs`

May import `serving` and everything below it.
"""
