"""The spool: records on a disk, until a daemon has them. `disk` is the queue, `files` its segments, `thinning` what a full one
does; `spilling` puts it behind the outbox, and `leftover` and `delivery` send what an earlier process left."""
