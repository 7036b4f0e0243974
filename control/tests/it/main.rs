//! Integration tests of the control plane: one binary, one module per topic.

#![recursion_limit = "256"] // for a service's record in `json!`

mod api;
mod redis;
mod store;
