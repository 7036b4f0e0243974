//! The admin API over real HTTP, a real router and a real store.

mod audit;
mod bodies;
mod changes;
mod client;
mod conditions;
mod creation;
mod env_vars;
mod history;
mod invoke;
mod keys;
mod lists;
mod protocol;
mod tokens;
mod users;
mod validation;
