//! The edge as its clients and replicas know it: byte for byte, from one end of a socket to the other.
//! Nothing of it is replaced; what would be a network or a container is a socket pair, and time is
//! paused.

mod client;
mod table;
mod world;

mod answers;
mod denials;
mod fields;
mod frames;
mod framing;
mod gone;
mod h2_abuse;
mod h2_client;
mod h2_gone;
mod h2_streams;
mod hosts;
mod idle;
mod leaving;
mod lines;
mod paths;
mod turns;
