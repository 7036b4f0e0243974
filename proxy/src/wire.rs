//! The edge as its clients and replicas know it: byte for byte, from one end of a socket to the other.
//! Nothing of it is replaced; what would be a network or a container is a socket pair, and time is
//! paused.

mod client;
mod table;
mod world;

mod fields;
mod framing;
mod hosts;
mod lines;
mod paths;
