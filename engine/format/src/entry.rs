//! Every decoder by name, as fuzzing and tests enter it: bytes in, nothing out, and a panic where a promise is broken.
