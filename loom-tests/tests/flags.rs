//! Checks that the models are compiled as models. `ci/models` runs this test with each build of
//! them; a plain `cargo test` does not, because it compiles no model.

#[test]
fn models_are_compiled_with_their_flags() {
    assert!(cfg!(any(loom, crossbeam_loom)), "no model was compiled: `ci/models` sets the flag");
    assert!(cfg!(debug_assertions), "mainstay asserts nothing: the profile must be `model`");
}
