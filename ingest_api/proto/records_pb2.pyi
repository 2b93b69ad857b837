from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenericRecord(_message.Message):
    __slots__ = ("body", "source", "timestamp", "metadata", "force_dead_letter")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BODY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    source: str
    timestamp: int
    metadata: _containers.ScalarMap[str, str]
    force_dead_letter: bool
    def __init__(self, body: _Optional[bytes] = ..., source: _Optional[str] = ..., timestamp: _Optional[int] = ..., metadata: _Optional[_Mapping[str, str]] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class KafkaSinkRecord(_message.Message):
    __slots__ = ("topic", "key", "value", "timestamp", "offset", "partition", "headers", "force_dead_letter")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    topic: str
    key: bytes
    value: bytes
    timestamp: int
    offset: int
    partition: int
    headers: _containers.RepeatedCompositeFieldContainer[KafkaHeader]
    force_dead_letter: bool
    def __init__(self, topic: _Optional[str] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., offset: _Optional[int] = ..., partition: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[KafkaHeader, _Mapping]]] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class KafkaHeader(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class AMQPSinkRecord(_message.Message):
    __slots__ = ("body", "timestamp", "type", "exchange", "routing_key", "content_type", "content_encoding", "priority", "expiration", "message_id", "user_id", "app_id", "reply_to", "correlation_id", "headers", "force_dead_letter")
    BODY_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_ENCODING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPIRATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    APP_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    timestamp: int
    type: str
    exchange: str
    routing_key: str
    content_type: str
    content_encoding: str
    priority: int
    expiration: str
    message_id: str
    user_id: str
    app_id: str
    reply_to: str
    correlation_id: str
    headers: _containers.RepeatedCompositeFieldContainer[AMQPHeader]
    force_dead_letter: bool
    def __init__(self, body: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., type: _Optional[str] = ..., exchange: _Optional[str] = ..., routing_key: _Optional[str] = ..., content_type: _Optional[str] = ..., content_encoding: _Optional[str] = ..., priority: _Optional[int] = ..., expiration: _Optional[str] = ..., message_id: _Optional[str] = ..., user_id: _Optional[str] = ..., app_id: _Optional[str] = ..., reply_to: _Optional[str] = ..., correlation_id: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[AMQPHeader, _Mapping]]] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class AMQPHeader(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class SQSRecord(_message.Message):
    __slots__ = ("attributes", "messageattributes", "messageid", "receipt", "body", "timestamp", "force_dead_letter")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class MessageattributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SQSRecordMessageAttribute
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SQSRecordMessageAttribute, _Mapping]] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGEATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGEID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, str]
    messageattributes: _containers.MessageMap[str, SQSRecordMessageAttribute]
    messageid: str
    receipt: str
    body: bytes
    timestamp: int
    force_dead_letter: bool
    def __init__(self, attributes: _Optional[_Mapping[str, str]] = ..., messageattributes: _Optional[_Mapping[str, SQSRecordMessageAttribute]] = ..., messageid: _Optional[str] = ..., receipt: _Optional[str] = ..., body: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class SQSRecordMessageAttribute(_message.Message):
    __slots__ = ("datatype", "stringvalue", "binaryvalue")
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    STRINGVALUE_FIELD_NUMBER: _ClassVar[int]
    BINARYVALUE_FIELD_NUMBER: _ClassVar[int]
    datatype: str
    stringvalue: str
    binaryvalue: bytes
    def __init__(self, datatype: _Optional[str] = ..., stringvalue: _Optional[str] = ..., binaryvalue: _Optional[bytes] = ...) -> None: ...

class AzureSinkRecord(_message.Message):
    __slots__ = ("content_type", "correlation_id", "data", "delivery_count", "session_id", "group_sequence", "id", "label", "reply_to", "reply_to_group_id", "to", "ttl", "lock_token", "system_properties", "user_properties", "format", "force_dead_letter")
    class UserPropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    LOCK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    USER_PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    content_type: str
    correlation_id: str
    data: bytes
    delivery_count: int
    session_id: str
    group_sequence: int
    id: str
    label: str
    reply_to: str
    reply_to_group_id: str
    to: str
    ttl: int
    lock_token: str
    system_properties: AzureSystemProperties
    user_properties: _containers.ScalarMap[str, str]
    format: int
    force_dead_letter: bool
    def __init__(self, content_type: _Optional[str] = ..., correlation_id: _Optional[str] = ..., data: _Optional[bytes] = ..., delivery_count: _Optional[int] = ..., session_id: _Optional[str] = ..., group_sequence: _Optional[int] = ..., id: _Optional[str] = ..., label: _Optional[str] = ..., reply_to: _Optional[str] = ..., reply_to_group_id: _Optional[str] = ..., to: _Optional[str] = ..., ttl: _Optional[int] = ..., lock_token: _Optional[str] = ..., system_properties: _Optional[_Union[AzureSystemProperties, _Mapping]] = ..., user_properties: _Optional[_Mapping[str, str]] = ..., format: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class AzureSystemProperties(_message.Message):
    __slots__ = ("locked_until", "sequence_number", "partition_id", "partition_key", "enqueued_time", "dead_letter_source", "scheduled_enqueue_time", "enqueued_sequence_number", "via_partition_key", "annotations")
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LOCKED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_KEY_FIELD_NUMBER: _ClassVar[int]
    ENQUEUED_TIME_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_ENQUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    ENQUEUED_SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    VIA_PARTITION_KEY_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    locked_until: int
    sequence_number: int
    partition_id: int
    partition_key: str
    enqueued_time: int
    dead_letter_source: str
    scheduled_enqueue_time: int
    enqueued_sequence_number: int
    via_partition_key: str
    annotations: _containers.ScalarMap[str, str]
    def __init__(self, locked_until: _Optional[int] = ..., sequence_number: _Optional[int] = ..., partition_id: _Optional[int] = ..., partition_key: _Optional[str] = ..., enqueued_time: _Optional[int] = ..., dead_letter_source: _Optional[str] = ..., scheduled_enqueue_time: _Optional[int] = ..., enqueued_sequence_number: _Optional[int] = ..., via_partition_key: _Optional[str] = ..., annotations: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GCPRecord(_message.Message):
    __slots__ = ("id", "data", "attributes", "publish_time", "delivery_attempt", "ordering_key", "force_dead_letter")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_TIME_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ORDERING_KEY_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    id: str
    data: bytes
    attributes: _containers.ScalarMap[str, str]
    publish_time: int
    delivery_attempt: int
    ordering_key: str
    force_dead_letter: bool
    def __init__(self, id: _Optional[str] = ..., data: _Optional[bytes] = ..., attributes: _Optional[_Mapping[str, str]] = ..., publish_time: _Optional[int] = ..., delivery_attempt: _Optional[int] = ..., ordering_key: _Optional[str] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class RedisRecord(_message.Message):
    __slots__ = ("payload", "channel", "timestamp", "force_dead_letter")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    payload: str
    channel: str
    timestamp: int
    force_dead_letter: bool
    def __init__(self, payload: _Optional[str] = ..., channel: _Optional[str] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class RedisStreamsRecord(_message.Message):
    __slots__ = ("id", "key", "value", "stream", "timestamp", "force_dead_letter")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    id: str
    key: str
    value: str
    stream: str
    timestamp: int
    force_dead_letter: bool
    def __init__(self, id: _Optional[str] = ..., key: _Optional[str] = ..., value: _Optional[str] = ..., stream: _Optional[str] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class MQTTRecord(_message.Message):
    __slots__ = ("id", "topic", "value", "duplicate", "retained", "qos", "timestamp", "force_dead_letter")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    RETAINED_FIELD_NUMBER: _ClassVar[int]
    QOS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    id: int
    topic: str
    value: bytes
    duplicate: bool
    retained: bool
    qos: int
    timestamp: int
    force_dead_letter: bool
    def __init__(self, id: _Optional[int] = ..., topic: _Optional[str] = ..., value: _Optional[bytes] = ..., duplicate: _Optional[bool] = ..., retained: _Optional[bool] = ..., qos: _Optional[int] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class NSQRecord(_message.Message):
    __slots__ = ("id", "topic", "channel", "attempts", "nsqd_address", "value", "timestamp", "force_dead_letter")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    NSQD_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    id: str
    topic: str
    channel: str
    attempts: int
    nsqd_address: str
    value: bytes
    timestamp: int
    force_dead_letter: bool
    def __init__(self, id: _Optional[str] = ..., topic: _Optional[str] = ..., channel: _Optional[str] = ..., attempts: _Optional[int] = ..., nsqd_address: _Optional[str] = ..., value: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class KubeMQRecord(_message.Message):
    __slots__ = ("id", "client_id", "channel", "value", "timestamp", "sequence", "force_dead_letter")
    ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    id: str
    client_id: str
    channel: str
    value: bytes
    timestamp: int
    sequence: int
    force_dead_letter: bool
    def __init__(self, id: _Optional[str] = ..., client_id: _Optional[str] = ..., channel: _Optional[str] = ..., value: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., sequence: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class NATSRecord(_message.Message):
    __slots__ = ("subject", "value", "timestamp", "force_dead_letter")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    subject: str
    value: bytes
    timestamp: int
    force_dead_letter: bool
    def __init__(self, subject: _Optional[str] = ..., value: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class NATSStreamingRecord(_message.Message):
    __slots__ = ("channel", "value", "sequence", "subject", "redelivered", "redelivery_count", "crc32", "timestamp", "force_dead_letter")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    REDELIVERY_COUNT_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    channel: str
    value: bytes
    sequence: int
    subject: str
    redelivered: bool
    redelivery_count: int
    crc32: int
    timestamp: int
    force_dead_letter: bool
    def __init__(self, channel: _Optional[str] = ..., value: _Optional[bytes] = ..., sequence: _Optional[int] = ..., subject: _Optional[str] = ..., redelivered: _Optional[bool] = ..., redelivery_count: _Optional[int] = ..., crc32: _Optional[int] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...

class NATSJetStreamRecord(_message.Message):
    __slots__ = ("stream", "value", "timestamp", "force_dead_letter")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FORCE_DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    stream: str
    value: bytes
    timestamp: int
    force_dead_letter: bool
    def __init__(self, stream: _Optional[str] = ..., value: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., force_dead_letter: _Optional[bool] = ...) -> None: ...
