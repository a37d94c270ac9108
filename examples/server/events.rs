//! Prints the events of the services to stderr.

use std::io::{self, Write};

use mainstay::{Event, EventKind, Observer, Registry};

pub(crate) struct PrintEvents;

impl Observer for PrintEvents {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let what = match &event.kind {
            // `/services` shows which services are waited for.
            EventKind::WaitStarted { .. } | EventKind::WaitEnded { .. } => return,
            // The reason is printed with the failure of the root.
            EventKind::Failed(failure) if failure.root != failure.service => {
                format!("failed because {} failed", failure.root)
            }
            EventKind::Invalidated(failure) if failure.root != failure.service => {
                format!("invalidated because {} failed", failure.root)
            }
            kind => kind.to_string(),
        };
        let Event { service, generation, elapsed, .. } = event;
        // `eprintln!` panics if stderr is closed.
        let _ = writeln!(io::stderr(), "{:>8} {generation:<3} {elapsed:>9.1?}  {what}", service);
    }
}
