"""The platform's REST API: a router per noun, below ``/api/v1``.

Whose things a caller sees is decided by the token alone; what belongs to another team is answered
like what does not exist.
"""
