"""The API gateway: Kong's and Traefik's files, one model, Envoy underneath.

`model` is the noun everybody speaks: the readers (`kong`, `traefik`, `native`) make it, `match` decides on it
what must happen to a request, the compiler turns it into Envoy's files. What a dialect means is data in the
model (an order key, a path rule, an answer's text), never an `if` further down.
"""
