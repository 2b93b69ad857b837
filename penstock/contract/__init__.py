"""What goes over the wire of the platform's API, a module for each noun.

The API answers with these shapes and the client reads them: a field is written down once, here, and
what is not written down is not told. Names in `…Asked` and `New…` are sent by callers, who get an
error for any other field; the others are answers. How an answer is made from what Penstock keeps
is the API's matter.
"""
