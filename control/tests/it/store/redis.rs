//! What the store in a Redis promises beyond what every store does.
