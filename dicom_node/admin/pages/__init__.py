"""The HTML pages, one module a subject: a router, and what it reads."""

from dicom_node.admin.pages import (
    audit,
    destinations,
    find,
    images,
    job,
    models,
    people,
    queue,
    retrievals,
    rules,
    system,
)

ROUTERS = tuple(
    module.router
    for module in (queue, find, job, images, models, rules, destinations, retrievals, system, people, audit)
)
