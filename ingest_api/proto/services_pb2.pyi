from ingest_api.proto import events_pb2 as _events_pb2
from ingest_api.proto import records_pb2 as _records_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenericRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.GenericRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.GenericRecord, _Mapping]]] = ...) -> None: ...

class GenericRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class AMQPRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.AMQPSinkRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.AMQPSinkRecord, _Mapping]]] = ...) -> None: ...

class AMQPRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class KafkaSinkRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.KafkaSinkRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.KafkaSinkRecord, _Mapping]]] = ...) -> None: ...

class KafkaSinkRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class SQSRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.SQSRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.SQSRecord, _Mapping]]] = ...) -> None: ...

class SQSRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class AzureRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.AzureSinkRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.AzureSinkRecord, _Mapping]]] = ...) -> None: ...

class AzureRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class GCPRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.GCPRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.GCPRecord, _Mapping]]] = ...) -> None: ...

class GCPRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class RedisRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.RedisRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.RedisRecord, _Mapping]]] = ...) -> None: ...

class RedisRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class RedisStreamsRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.RedisStreamsRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.RedisStreamsRecord, _Mapping]]] = ...) -> None: ...

class RedisStreamsRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class MQTTRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.MQTTRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.MQTTRecord, _Mapping]]] = ...) -> None: ...

class MQTTRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class NSQRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.NSQRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.NSQRecord, _Mapping]]] = ...) -> None: ...

class NSQRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class KubeMQRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.KubeMQRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.KubeMQRecord, _Mapping]]] = ...) -> None: ...

class KubeMQRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class NATSRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.NATSRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.NATSRecord, _Mapping]]] = ...) -> None: ...

class NATSRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class NATSStreamingRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.NATSStreamingRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.NATSStreamingRecord, _Mapping]]] = ...) -> None: ...

class NATSStreamingRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class NATSJetStreamRecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.NATSJetStreamRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_records_pb2.NATSJetStreamRecord, _Mapping]]] = ...) -> None: ...

class NATSJetStreamRecordResponse(_message.Message):
    __slots__ = ("num_records_processed", "status")
    NUM_RECORDS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    num_records_processed: int
    status: _events_pb2.Status
    def __init__(self, num_records_processed: _Optional[int] = ..., status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...

class TestRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TestResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _events_pb2.Status
    def __init__(self, status: _Optional[_Union[_events_pb2.Status, _Mapping]] = ...) -> None: ...
