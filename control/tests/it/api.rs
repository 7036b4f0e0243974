//! The admin API over real HTTP, a real router and a real store.

mod bodies;
mod changes;
mod client;
mod creation;
mod history;
mod lists;
mod protocol;
mod validation;
