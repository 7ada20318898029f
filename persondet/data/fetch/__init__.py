"""Getting an export: from a zip, from a folder, or from Roboflow, whole or not at all.

`importing` and `transfer` are the doors. Both take the same road: `archive` unpacks, `importing`
takes what belongs to the export and verifies it.
"""
