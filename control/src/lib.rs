//! Control plane of Grid Functions: what a service is, where it is kept, how it becomes running
//! containers, and the admin API. Nothing here knows Pingora.

pub mod account;
pub mod advisory;
pub mod api;
pub mod audit;
pub mod config;
pub mod context;
pub mod denied;
pub mod deploy;
pub mod doctor;
pub mod egress;
pub mod engine;
pub mod environment;
pub mod error;
pub mod firewall;
pub mod health;
pub mod image;
pub mod invoke;
pub mod limits;
pub mod logs;
pub mod mask;
pub mod name;
pub mod plane;
pub mod replica;
pub mod resolver;
pub mod rotation;
pub mod rounds;
pub mod run_dir;
pub mod runtime;
mod sandbox;
pub mod scaler;
pub mod seccomp;
pub mod secret;
pub mod service;
pub mod store;
pub mod token;
mod tool;
