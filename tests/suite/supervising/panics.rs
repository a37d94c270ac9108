//! Panics of user code under supervision: in builders, values, errors, and their drops.
//!
//! - None of them ends the loop of the supervisor, nor the shutdown of the registry.

use std::{error::Error, fmt, future::pending};

use super::runtime::{BoxError, TestRuntime, exact, ms};
use mainstay::supervise::SupervisorState;

/// An error that panics when it is dropped.
#[derive(Debug)]
pub(super) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb is dropped");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl Error for Bomb {}

#[test]
fn panics_of_builders_errors_and_drops_do_not_end_the_supervisor() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let mut calls = 0;
    runtime.supervise(id, exact().backoff(ms(1), ms(1)).build_timeout(ms(10)), move |_| {
        calls += 1;
        let call = calls;
        assert!(call != 1, "in the call");
        async move {
            let _in_the_future = (call == 2).then(|| Bomb);
            match call {
                2 => pending().await,
                3 => panic!("in a poll"),
                4 => Err(Box::new(Bomb) as BoxError),
                5 => std::panic::panic_any(Bomb),
                6 => Err("an error".into()),
                _ => Ok(call),
            }
        }
    });
    runtime.run_until_idle();
    for why in [
        "the build panicked: in the call",
        "not built within 10ms",
        "the build panicked: in a poll",
        "a bomb",
        "the build panicked: the message is not text",
        "an error",
    ] {
        if runtime.state(id) == SupervisorState::Building {
            runtime.advance(ms(10));
        }
        let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
        assert_eq!(failure.reason.to_string(), why);
        std::mem::forget(failure);
        runtime.advance(ms(1));
    }
    assert_eq!(runtime.get(id), Some(7));
}

#[test]
fn an_error_that_panics_in_its_drop_does_not_disturb_the_close() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let registry = runtime.registry.clone();
    runtime.supervise(id, exact(), move |_| {
        registry.close();
        async { Err::<u32, _>(Box::new(Bomb) as BoxError) }
    });
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty(), "the supervisor has not ended");
}
