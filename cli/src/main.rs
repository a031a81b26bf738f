//! The door `littoral`.

fn main() {}
