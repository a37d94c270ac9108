//! `Recorder`: an observer that stores the events as lines of text.

use std::{fmt::Write, mem, sync::Arc};

use crate::{
    event::{Event, EventKind},
    registry::{Observer, Registry},
    sync::{Mutex, lock},
};

/// An observer that stores each event as a line of text: `service generation: event`.
///
/// Registrations, and the starts and ends of waits, are not stored. Clones share their lines.
///
/// ```
/// use mainstay::{Registry, test_kit::Recorder};
///
/// let recorder = Recorder::default();
/// let registry = Registry::builder(1)?.observer(recorder.clone()).build();
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
/// registry.fail(port, "closed")?;
///
/// recorder.assert_order(&["port 0: ready", "port 0: failed: closed"]);
/// let lines = recorder.take();
/// assert_eq!(lines, ["port 0: attempt started", "port 0: ready", "port 0: failed: closed"]);
/// assert!(recorder.take().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    /// Returns all lines since the last call, and removes them.
    ///
    /// ```
    /// assert!(mainstay::test_kit::Recorder::default().take().is_empty());
    /// ```
    pub fn take(&self) -> Vec<String> {
        mem::take(&mut lock(&self.0))
    }

    /// Asserts that these lines were recorded in this order. Other lines may be between them.
    ///
    /// Removes no lines.
    ///
    /// # Panics
    ///
    /// A line was not recorded after the previous one. The message contains all recorded lines.
    ///
    /// ```should_panic
    /// // "port 0: ready" was not recorded. Recorded: nothing
    /// mainstay::test_kit::Recorder::default().assert_order(&["port 0: ready"]);
    /// ```
    #[track_caller]
    pub fn assert_order(&self, expected: &[&str]) {
        let lines = lock(&self.0).clone();
        let mut remaining = lines.iter();
        for (i, expected_line) in expected.iter().enumerate() {
            // `any` also consumes the line that it finds, so the next search starts after it.
            if remaining.any(|line| line == expected_line) {
                continue;
            }
            let mut message = format!("{expected_line:?} was not recorded");
            if i > 0 {
                let _ = write!(message, " after {:?}", expected[i - 1]);
            }
            message.push_str(". Recorded:");
            let all = lines.iter().map(|line| format!("\n    {line}"));
            message.extend(if lines.is_empty() { vec![" nothing".into()] } else { all.collect() });
            panic!("{message}");
        }
    }
}

impl Observer for Recorder {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        match event.kind {
            EventKind::Registered | EventKind::WaitStarted { .. } | EventKind::WaitEnded { .. } => {
            }
            _ => {
                let line = format!("{} {}: {}", event.service, event.generation, event.kind);
                lock(&self.0).push(line);
            }
        }
    }
}
