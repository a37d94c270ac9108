//! A process that a test has started.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// A process that is killed when this is dropped.
pub struct Process {
    pub child: Child,
    /// The file to which it writes what it does. A test that fails prints its last lines.
    log: Option<PathBuf>,
}

impl Process {
    pub fn new(child: Child) -> Self {
        Self { child, log: None }
    }

    /// As `new`, of a process that writes to this file.
    pub fn with_log(child: Child, log: PathBuf) -> Self {
        Self { child, log: Some(log) }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid]).status();
        assert!(kill.expect("`kill` can be executed").success());
    }

    /// Blocks until the process has ended. Panics if it does not end within this time.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return status;
            }
            assert!(start.elapsed() < limit, "the process does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let Some(log) = self.log.as_ref().filter(|_| thread::panicking()) else { return };
        let log = fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
        let tail = log.lines().rev().take(40).collect::<Vec<_>>();
        eprintln!("last lines of the log of the process:");
        tail.iter().rev().for_each(|line| eprintln!("  {line}"));
    }
}
