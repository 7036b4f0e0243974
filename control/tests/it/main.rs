//! Integration tests of the control plane: one binary, one module per topic.

mod api;
mod store;
