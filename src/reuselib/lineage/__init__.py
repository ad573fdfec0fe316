"""The record: what a model is, what it was made from, and whether a folder is still that model.

From the ground up: `canonical` (JSON in one form), `hashing` (SHA-256 on all cores), `digest`
(files), `headers` and `rows` (tensors), `inventory` (both at once), `descriptors`, `definition`,
`details` and `manifest` (the record of one derivation), `chain` (its ancestors), `record` (writing
it), `verify` (checking it), `store` (keeping it). `tensors` reads and writes weights, and alone
uses torch. Nothing here knows adapters or tasks.
"""
