"""The REST API, version 1: lists and single things to read, and the actions of an operator. docs/api.md tells how."""

from dicom_node.admin.api import actions, catalog, lists, retrievals, rules
from dicom_node.admin.api.shapes import Problem
from dicom_node.admin.api.version import describe, router

ROUTERS = (
    *(module.router for module in (lists, catalog, rules, actions)),
    retrievals.lists,
    retrievals.actions,
)

__all__ = ["ROUTERS", "Problem", "describe", "router"]
