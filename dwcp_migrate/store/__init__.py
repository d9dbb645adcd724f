"""Page store of a host: 4 KiB pages by content, so that a migration names pages that its destination already has.

Modules:
    digests: names of pages, keyed for each scope; the scope of a domain
    statement: a destination's statement of its pages, two bytes each
    index: names to places, merged over the volumes of a scope
    volume: the bytes of a volume: its index file and its blocks of pages
    eviction: which volumes go when room is needed; core, as all before it
    shelf: the directory: volumes listed, made room for, verified, wiped
    reader, writer: pages out of the volumes of a scope, verified; pages into a new one
    qcow2, image: which bytes of a disk image are guest blocks; an image as a volume that is read where it lies
"""
