//! The entry `log`: see `littoral_format::entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(entry) = littoral_format::entry::find("log") {
        (entry.run)(bytes);
    }
});
