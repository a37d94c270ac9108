//! What happened, in order.

use std::{fmt::Write, mem, sync::Arc};

use crate::{
    event::{Event, EventKind},
    registry::{Observer, Registry},
    sync::{Mutex, lock},
};

/// An observer that notes each event as a line of text: `service generation: what happened`. Clones have the same lines.
///
/// Registrations, and waits that begin and end, are left out.
///
/// ```
/// use mainstay::{Recorder, Registry};
///
/// let recorder = Recorder::default();
/// let registry = Registry::builder(1)?.observer(recorder.clone()).build();
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait()?.ready(80)?;
/// registry.fail(port, "closed")?;
///
/// recorder.assert_order(&["port 0: ready", "port 0: failed: closed"]);
/// assert_eq!(recorder.take(), ["port 0: begun", "port 0: ready", "port 0: failed: closed"]);
/// assert!(recorder.take().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    /// All lines since the last call, and forgets them.
    ///
    /// ```
    /// assert!(mainstay::Recorder::default().take().is_empty());
    /// ```
    pub fn take(&self) -> Vec<String> {
        mem::take(&mut lock(&self.0))
    }

    /// That these lines are there, in this order; others may be between them. Forgets none.
    ///
    /// # Panics
    ///
    /// One is not there after the one before it: with what there is, and which that is.
    ///
    /// ```should_panic
    /// // "port 0: ready" is not there. There is: nothing
    /// mainstay::Recorder::default().assert_order(&["port 0: ready"]);
    /// ```
    #[track_caller]
    pub fn assert_order(&self, expected: &[&str]) {
        let lines = lock(&self.0).clone();
        let mut left = lines.iter();
        for (i, expected_now) in expected.iter().enumerate() {
            if left.any(|line| line == expected_now) {
                continue;
            }
            let mut message = format!("{expected_now:?} is not there");
            if i > 0 {
                let _ = write!(message, " after {:?}", expected[i - 1]);
            }
            message.push_str(". There is:");
            let all = lines.iter().map(|line| format!("\n    {line}"));
            message.extend(if lines.is_empty() { vec![" nothing".into()] } else { all.collect() });
            panic!("{message}");
        }
    }
}

impl Observer for Recorder {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        match event.kind {
            EventKind::Registered | EventKind::WaitBegun { .. } | EventKind::WaitEnded { .. } => {}
            _ => {
                let line = format!("{} {}: {}", event.service, event.generation, event.kind);
                lock(&self.0).push(line);
            }
        }
    }
}
