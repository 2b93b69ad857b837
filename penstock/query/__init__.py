"""The search language: text to tree to SQL. Pure."""

from __future__ import annotations

from penstock.query.parse import parse
from penstock.query.sql import compile_parts, compile_sql
from penstock.query.tree import Fact, Query

__all__ = ["Fact", "Query", "compile_parts", "compile_sql", "parse"]
