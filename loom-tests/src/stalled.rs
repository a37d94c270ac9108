//! A switch that is paused when it has installed some of its instances.

use loom::{
    sync::{Arc, Condvar, Mutex},
    thread::{JoinHandle, spawn},
};
use mainstay::models::Reload;

use crate::join;

/// Is open from some time on.
#[derive(Clone)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_one();
    }

    fn pass(&self) {
        let mut is_open = self.0.0.lock().expect("no panic");
        while !*is_open {
            is_open = self.0.1.wait(is_open).expect("no panic");
        }
    }
}

/// Where a switch is paused.
pub struct Stall {
    reached: Gate,
    continues: Gate,
}

/// A switch that is paused. Nothing but its own thread has run until then.
pub struct Stalled {
    continues: Gate,
    switch: JoinHandle<bool>,
}

impl Stall {
    /// Pauses the switch after the instance of the member is installed that was prepared last.
    pub fn after_last(reload: &mut Reload) -> Self {
        let (reached, continues) = (Gate::new(), Gate::new());
        let stall = Self { reached: reached.clone(), continues: continues.clone() };
        reload.stall(move || {
            reached.open();
            continues.pass();
        });
        stall
    }

    /// Executes the switch on a thread, until it is paused.
    pub fn begin(self, reload: Reload) -> Stalled {
        let switch = spawn(move || reload.commit());
        self.reached.pass();
        Stalled { continues: self.continues, switch }
    }
}

impl Stalled {
    /// Lets the switch continue beside the other threads.
    pub fn resume(self) -> JoinHandle<bool> {
        self.continues.open();
        self.switch
    }

    /// Lets the switch end. Returns whether it is committed.
    pub fn end(self) -> bool {
        join(self.resume())
    }
}
