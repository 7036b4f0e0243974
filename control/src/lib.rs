//! Control plane of Grid Functions: what a service is, where it is kept, how it becomes running
//! containers, and the admin API. Nothing here knows Pingora.

pub mod api;
pub mod config;
pub mod error;
pub mod health;
pub mod limits;
pub mod logs;
pub mod name;
pub mod runtime;
pub mod service;
pub mod store;
