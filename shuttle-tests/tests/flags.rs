//! Checks that the scenarios are compiled for shuttle. `ci/shuttle` runs this test with each build
//! of them; a plain `cargo test` does not, because it compiles no scenario.

#[test]
fn scenarios_are_compiled_with_their_flags() {
    assert!(cfg!(shuttle), "no scenario was compiled: `ci/shuttle` sets the flag");
    assert!(cfg!(debug_assertions), "mainstay asserts nothing: the profile must be `model`");
}
