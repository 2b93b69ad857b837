"""What a commit changes, and what must hold for it at the moment it is made.

PyIceberg's requirements are checked against the metadata that the commit replaces, not against
what was loaded before. Two of ours close what the standard ones leave open; a catalog in a SQL
database or in Glue is checked by this process and knows them. A REST catalog does not, see
`lakehouse.upkeep.expire`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AddSortOrderUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSortOrderId,
    AssertLastAssignedFieldId,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemovePropertiesUpdate,
    RemoveSchemasUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetCurrentSchemaUpdate,
    SetDefaultSortOrderUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
    ValidatableTableRequirement,
)

# The names that PyIceberg's fields have in JSON are no Python names, hence `model_validate`.


class AssertPresent(ValidatableTableRequirement):
    """The snapshot must be in the table: a tag must not be given to one that was expired."""

    type: Literal["penstock-assert-present"] = "penstock-assert-present"
    snapshot: int = Field()

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # PyIceberg's own name, which hides pydantic's
        """Raise `CommitFailedException` if it is gone."""
        if base_metadata is None or base_metadata.snapshot_by_id(self.snapshot) is None:
            raise CommitFailedException(f"snapshot {self.snapshot} is gone")


class AssertUnreferenced(ValidatableTableRequirement):
    """No branch and no tag may point at these snapshots.

    Removing a snapshot removes its tags without a word: a plan that pinned one between the load
    and the commit of an expiry lost it.
    """

    type: Literal["penstock-assert-unreferenced"] = "penstock-assert-unreferenced"
    snapshots: frozenset[int] = Field()

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # PyIceberg's own name, which hides pydantic's
        """Raise `CommitFailedException` if one of them is pinned by now, or gone."""
        if base_metadata is None:
            raise CommitFailedException("the table is gone")
        for name, ref in base_metadata.refs.items():
            if ref.snapshot_id in self.snapshots:
                raise CommitFailedException(f"{name} points at snapshot {ref.snapshot_id}")
        gone = self.snapshots - {snapshot.snapshot_id for snapshot in base_metadata.snapshots}
        if gone:
            raise CommitFailedException(f"somebody else removed {len(gone)} of the snapshots")


OURS = frozenset({"penstock-assert-present", "penstock-assert-unreferenced"})
"""The types that only a catalog which is checked by this process understands."""


def same_table(metadata: TableMetadata) -> ValidatableTableRequirement:
    """Require that the table is the one loaded, not another one of its name."""
    return AssertTableUUID(uuid=metadata.table_uuid)


def same_schema(metadata: TableMetadata) -> ValidatableTableRequirement:
    """Require that nobody changed the columns."""
    return AssertCurrentSchemaId.model_validate({"current-schema-id": metadata.current_schema_id})


def same_last_id(metadata: TableMetadata) -> ValidatableTableRequirement:
    """Require that nobody gave out column ids."""
    return AssertLastAssignedFieldId.model_validate(
        {"last-assigned-field-id": metadata.last_column_id}
    )


def same_ref(name: str, snapshot_id: int | None) -> ValidatableTableRequirement:
    """Require that the branch or tag points at this snapshot, or that there is none."""
    return AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": snapshot_id})


def same_sort_order(metadata: TableMetadata) -> ValidatableTableRequirement:
    """Require that the default sort order is still the one loaded."""
    return AssertDefaultSortOrderId.model_validate(
        {"default-sort-order-id": metadata.default_sort_order_id}
    )


def set_schema(schema: Schema) -> tuple[TableUpdate, ...]:
    """Add the schema and make it the current one."""
    newest = -1
    return (
        AddSchemaUpdate(schema=schema),
        SetCurrentSchemaUpdate.model_validate({"schema-id": newest}),
    )


def add_schema(schema: Schema) -> TableUpdate:
    """Add the schema without using it: from then on its ids are given."""
    return AddSchemaUpdate(schema=schema)


def set_current(schema_id: int) -> tuple[TableUpdate, ...]:
    """Make a schema that the table has the current one."""
    return (SetCurrentSchemaUpdate.model_validate({"schema-id": schema_id}),)


def set_tag(name: str, snapshot_id: int) -> TableUpdate:
    """Give the snapshot a tag."""
    return SetSnapshotRefUpdate.model_validate(
        {"ref-name": name, "type": SnapshotRefType.TAG, "snapshot-id": snapshot_id}
    )


def set_branch(name: str, snapshot_id: int) -> TableUpdate:
    """Let the branch point at the snapshot."""
    return SetSnapshotRefUpdate.model_validate(
        {"ref-name": name, "type": SnapshotRefType.BRANCH, "snapshot-id": snapshot_id}
    )


def remove_ref(name: str) -> TableUpdate:
    """Take a tag away."""
    return RemoveSnapshotRefUpdate.model_validate({"ref-name": name})


def set_properties(properties: dict[str, str]) -> TableUpdate:
    """Set properties of the table."""
    return SetPropertiesUpdate(updates=properties)


def remove_properties(names: list[str]) -> TableUpdate:
    """Remove table properties; it is no error if there are none of these names."""
    return RemovePropertiesUpdate(removals=names)


def set_sort_order(metadata: TableMetadata, columns: tuple[str, ...]) -> tuple[TableUpdate, ...]:
    """Ask whoever writes for rows ascending by these columns."""
    fields = [SortField(metadata.schema().find_field(name).field_id) for name in columns]
    number = 1 + max((order.order_id for order in metadata.sort_orders), default=0)
    order = SortOrder(*fields, **{"order-id": number})
    return (
        AddSortOrderUpdate.model_validate({"sort-order": order}),
        SetDefaultSortOrderUpdate.model_validate({"sort-order-id": number}),
    )


def remove_snapshots(snapshot_ids: list[int]) -> TableUpdate:
    """Remove snapshots from the table's history."""
    return RemoveSnapshotsUpdate.model_validate({"snapshot-ids": snapshot_ids})


def remove_schemas(schema_ids: list[int]) -> TableUpdate:
    """Forget schemas."""
    return RemoveSchemasUpdate.model_validate({"schema-ids": schema_ids})
