//! What happens to the services, told on stderr.

use std::io::{self, Write};

use mainstay::{Event, EventKind, Observer, Registry};

pub(crate) struct PrintEvents;

impl Observer for PrintEvents {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let what = match &event.kind {
            // Who waits for whom shows in `/services`, for as long as it does.
            EventKind::WaitBegun { .. } | EventKind::WaitEnded { .. } => return,
            // The reason stands with the service at which it began.
            EventKind::Failed(failure) | EventKind::Overtaken(failure)
                if failure.root != failure.service =>
            {
                format!("down with {}", failure.root)
            }
            kind => kind.to_string(),
        };
        let Event { service, generation, took, .. } = event;
        // Not `eprintln!`, which panics where nobody listens to stderr any more.
        let _ = writeln!(io::stderr(), "{:>8} {generation:<3} {took:>9.1?}  {what}", service);
    }
}
