//! The store for one process: one redb file for what is durable, memory for what is not.
