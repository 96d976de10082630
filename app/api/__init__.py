"""HTTP as clients see it: routes, uploads, schemas, problems, keys.

middleware.py -> every request: its id, its log line, its metrics, its timings
request_log.py -> what is recorded of a request
security_headers.py -> headers that every answer carries
cross_origin.py -> what pages of other origins may send and read
auth.py, keys.py -> whose API key it is, and what that key may do
predict.py -> the prediction routes
bodies/ -> reads the images of a request, within the limits
disconnect.py -> stops the work for a client that has left
answers.py -> classifies the images, and shapes the results
large_answers.py -> bounds answers with many predictions, and sends them in pieces
schemas.py -> the JSON of requests and answers
problems.py -> errors as `application/problem+json`
models.py -> the routes that describe, load and unload models
health.py -> probes and metrics
pages.py -> the pages for people, `/` and `/docs`

May import `serving` and everything below it.
"""
