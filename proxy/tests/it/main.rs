//! End-to-end tests: the real binary, real Docker Engine, functions called through the public port.
//! They run in the lab (`scripts/lab`), out of which no packet leads.

mod access;
mod bodies;
mod concurrency;
mod connections;
mod deployments;
mod distrust;
mod docker;
mod edge;
mod egress;
mod engine;
mod events;
mod failing;
mod grid;
mod hardening;
mod hostile;
mod http;
mod https;
mod idle;
mod input;
mod internet;
mod lab;
mod load;
mod logs;
mod neighbours;
mod oci;
mod process;
mod relay;
mod restart;
mod results;
mod scaling;
mod seed;
mod settings;
mod streams;
mod tricks;
mod withheld;
