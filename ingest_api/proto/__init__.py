"""The gRPC contract: three .proto files and the modules that `generate.py` made of them.

The packages of the contract are called `records`, `events` and `services`. Names that general may
be taken in protobuf's default pool, so these messages have a pool of their own.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
