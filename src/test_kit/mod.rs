//! For tests of supervised services: they take no time, and come out the same each time.

mod recorder;
mod script;
mod stage;
mod virtual_clock;

pub use self::{
    recorder::Recorder,
    script::{Fate, Script},
    stage::Stage,
    virtual_clock::VirtualClock,
};
