from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Tunnel(_message.Message):
    __slots__ = ("type", "replay_id", "auth_request", "auth_response", "outbound_message", "replay_message", "tunnel_event")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSET: _ClassVar[Tunnel.Type]
        AUTH_REQUEST: _ClassVar[Tunnel.Type]
        AUTH_RESPONSE: _ClassVar[Tunnel.Type]
        OUTBOUND_MESSAGE: _ClassVar[Tunnel.Type]
        REPLAY_EVENT: _ClassVar[Tunnel.Type]
        TUNNEL_EVENT: _ClassVar[Tunnel.Type]
    UNSET: Tunnel.Type
    AUTH_REQUEST: Tunnel.Type
    AUTH_RESPONSE: Tunnel.Type
    OUTBOUND_MESSAGE: Tunnel.Type
    REPLAY_EVENT: Tunnel.Type
    TUNNEL_EVENT: Tunnel.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ID_FIELD_NUMBER: _ClassVar[int]
    AUTH_REQUEST_FIELD_NUMBER: _ClassVar[int]
    AUTH_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLAY_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_EVENT_FIELD_NUMBER: _ClassVar[int]
    type: Tunnel.Type
    replay_id: str
    auth_request: AuthRequest
    auth_response: AuthResponse
    outbound_message: Outbound
    replay_message: ReplayEvent
    tunnel_event: TunnelEvent
    def __init__(self, type: _Optional[_Union[Tunnel.Type, str]] = ..., replay_id: _Optional[str] = ..., auth_request: _Optional[_Union[AuthRequest, _Mapping]] = ..., auth_response: _Optional[_Union[AuthResponse, _Mapping]] = ..., outbound_message: _Optional[_Union[Outbound, _Mapping]] = ..., replay_message: _Optional[_Union[ReplayEvent, _Mapping]] = ..., tunnel_event: _Optional[_Union[TunnelEvent, _Mapping]] = ...) -> None: ...

class AuthRequest(_message.Message):
    __slots__ = ("token", "message_bus", "name", "plumber_cluster_id", "tunnel_id", "plumber_version", "plumber_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BUS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLUMBER_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_ID_FIELD_NUMBER: _ClassVar[int]
    PLUMBER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLUMBER_ID_FIELD_NUMBER: _ClassVar[int]
    token: str
    message_bus: str
    name: str
    plumber_cluster_id: str
    tunnel_id: str
    plumber_version: str
    plumber_id: str
    def __init__(self, token: _Optional[str] = ..., message_bus: _Optional[str] = ..., name: _Optional[str] = ..., plumber_cluster_id: _Optional[str] = ..., tunnel_id: _Optional[str] = ..., plumber_version: _Optional[str] = ..., plumber_id: _Optional[str] = ...) -> None: ...

class AuthResponse(_message.Message):
    __slots__ = ("authorized", "message")
    AUTHORIZED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    authorized: bool
    message: str
    def __init__(self, authorized: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class Outbound(_message.Message):
    __slots__ = ("replay_id", "blob", "last", "metadata", "ingest_timestamp_nano")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REPLAY_ID_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    INGEST_TIMESTAMP_NANO_FIELD_NUMBER: _ClassVar[int]
    replay_id: str
    blob: bytes
    last: bool
    metadata: _containers.ScalarMap[str, str]
    ingest_timestamp_nano: int
    def __init__(self, replay_id: _Optional[str] = ..., blob: _Optional[bytes] = ..., last: _Optional[bool] = ..., metadata: _Optional[_Mapping[str, str]] = ..., ingest_timestamp_nano: _Optional[int] = ...) -> None: ...

class ReplayEvent(_message.Message):
    __slots__ = ("type", "replay_id")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSET: _ClassVar[ReplayEvent.Type]
        CREATE_REPLAY: _ClassVar[ReplayEvent.Type]
        PAUSE_REPLAY: _ClassVar[ReplayEvent.Type]
        RESUME_REPLAY: _ClassVar[ReplayEvent.Type]
        ABORT_REPLAY: _ClassVar[ReplayEvent.Type]
        FINISH_REPLAY: _ClassVar[ReplayEvent.Type]
        DISCONNECT: _ClassVar[ReplayEvent.Type]
    UNSET: ReplayEvent.Type
    CREATE_REPLAY: ReplayEvent.Type
    PAUSE_REPLAY: ReplayEvent.Type
    RESUME_REPLAY: ReplayEvent.Type
    ABORT_REPLAY: ReplayEvent.Type
    FINISH_REPLAY: ReplayEvent.Type
    DISCONNECT: ReplayEvent.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ID_FIELD_NUMBER: _ClassVar[int]
    type: ReplayEvent.Type
    replay_id: str
    def __init__(self, type: _Optional[_Union[ReplayEvent.Type, str]] = ..., replay_id: _Optional[str] = ...) -> None: ...

class TunnelEvent(_message.Message):
    __slots__ = ("type", "tunnel_id")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSET: _ClassVar[TunnelEvent.Type]
        FORCE_DISCONNECT: _ClassVar[TunnelEvent.Type]
    UNSET: TunnelEvent.Type
    FORCE_DISCONNECT: TunnelEvent.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_ID_FIELD_NUMBER: _ClassVar[int]
    type: TunnelEvent.Type
    tunnel_id: str
    def __init__(self, type: _Optional[_Union[TunnelEvent.Type, str]] = ..., tunnel_id: _Optional[str] = ...) -> None: ...

class DeleteTunnelRequest(_message.Message):
    __slots__ = ("token", "plumber_cluster_id", "tunnel_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    PLUMBER_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TUNNEL_ID_FIELD_NUMBER: _ClassVar[int]
    token: str
    plumber_cluster_id: str
    tunnel_id: str
    def __init__(self, token: _Optional[str] = ..., plumber_cluster_id: _Optional[str] = ..., tunnel_id: _Optional[str] = ...) -> None: ...

class DeleteTunnelResponse(_message.Message):
    __slots__ = ("success", "message")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    def __init__(self, success: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...
