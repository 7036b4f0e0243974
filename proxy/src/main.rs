//! Grid.
fn main(){}
