//! Links the extension so that it stays loaded for good (a file may outlive the connection that loaded it), and exports its entry
//! points alone.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // The compiler lists every symbol that some dependency spells for C. Those lie in archives; ours do not.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}
