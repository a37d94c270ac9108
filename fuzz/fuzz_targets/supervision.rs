//! The target `supervision` for libFuzzer. Without libFuzzer, it replays the files that are its
//! arguments.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mainstay_fuzz::supervision::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    mainstay_fuzz::replay(mainstay_fuzz::supervision::run)
}
