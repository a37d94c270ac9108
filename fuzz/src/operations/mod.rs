//! Sequences of all operations on one thread. The result of each is compared with a model.

mod compare;
mod edges;
mod model;
mod op;
mod outcome;
mod reading;
mod steps;
mod value;
mod waits;
mod world;

use arbitrary::{Arbitrary, Unstructured};

use self::{op::Script, world::World};

/// Runs one input: the bytes of a [`Script`].
///
/// # Panics
///
/// The registry and the model differ.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) else { return };
    if crate::is_traced() {
        println!("{script:#?}");
    }
    let mut world = World::new(&script);
    for &op in &script.ops {
        world.step(op);
        world.check();
    }
    world.finish();
}
