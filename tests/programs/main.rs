//! Programs as processes, with real signals: this binary starts itself, as one of the programs of
//! `child.rs`.
//!
//! - SIGTERM and SIGINT end a program in order, on every executor, with the exit code 0.
//! - A second signal ends it at once, with the exit code 128 + its number.
//! - The first signal is not lost if no future is polled. It ends the process if no future exists.
//! - A panic, an error, and a body that does not return have their exit codes and texts.
#![cfg(all(unix, feature = "signals", feature = "smol", feature = "tokio"))]

mod child;

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use crate::child::PROGRAM;

/// A limit that is never reached, so that a test that fails does not hang.
const DEADLINE: Duration = Duration::from_secs(60);

struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(program: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "this_process_is_the_program", "--nocapture", "--test-threads=1"])
            .env(PROGRAM, program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits until the process writes this line.
    fn until(&self, expected: &str) {
        while self.lines.recv_timeout(DEADLINE).expect(expected) != expected {}
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status =
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end of the process. Returns its exit code, and its standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() < DEADLINE => thread::sleep(Duration::from_millis(2)),
                None => panic!("the process does not end"),
            }
        };
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status.code(), stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The entry of a process that was started here. Without the variable, it does nothing.
#[test]
fn this_process_is_the_program() {
    if let Ok(program) = env::var(PROGRAM) {
        child::run(&program);
    }
}

#[test]
fn a_signal_ends_a_program_in_order_on_every_executor() {
    for executor in ["threads", "tokio", "smol"] {
        for (signal, name) in [("TERM", "SIGTERM"), ("INT", "SIGINT")] {
            let process = Process::start(executor);
            process.until("ready");
            process.signal(signal);
            process.until("b is closed");
            process.until("a is closed");
            process.until(&format!("{name}; 2 services stopped in time"));
            let (code, stderr) = process.end();
            assert_eq!((code, &*stderr), (Some(0), ""), "{executor}");
        }
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (first, second, expected) in
        [("TERM", "TERM", 143), ("INT", "TERM", 143), ("TERM", "INT", 130)]
    {
        let process = Process::start("stubborn");
        process.until("ready");
        process.signal(first);
        process.until("the body continues");
        process.signal(second);
        assert_eq!(process.end().0, Some(expected));
    }
}

#[test]
fn the_first_signal_is_recorded_before_a_future_is_polled() {
    let mut process = Process::start("late");
    process.until("installed");
    process.signal("TERM");
    process.child.stdin.take().unwrap().write_all(b"continue\n").unwrap();
    process.until("SIGTERM; 2 services stopped in time");
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn the_first_signal_ends_a_process_that_has_no_future_for_it() {
    let process = Process::start("deaf");
    process.until("installed");
    process.signal("TERM");
    assert_eq!(process.end().0, Some(143));
}

#[test]
fn a_signal_can_be_awaited_without_a_program() {
    let process = Process::start("by hand");
    process.until("ready");
    process.signal("INT");
    process.until("SIGINT, SIGINT and SIGINT");
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn a_signal_during_another_end_does_not_interrupt_it() {
    let process = Process::start("ending");
    process.until("the body continues");
    process.signal("TERM");
    process.until("SIGTERM is the reason of the body");
    process.until("nothing to do; 1 service stopped in time");
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn a_supervisor_that_panics_is_in_the_exit_code_and_the_text() {
    let (code, stderr) = Process::start("panicking").end();
    assert_eq!(code, Some(101));
    assert!(stderr.contains("the supervisor of a panicked: no clock"), "{stderr}");
}

#[test]
fn an_error_of_the_start_is_in_the_exit_code_and_the_text() {
    let process = Process::start("failing");
    process.until("a is closed");
    let (code, stderr) = process.end();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the start has failed: invalid digit found in string"), "{stderr}");
}

#[test]
fn a_program_ends_by_the_request_of_a_body() {
    let process = Process::start("requesting");
    process.until("the queue is empty; 1 service stopped in time");
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn a_body_that_does_not_return_is_left_behind() {
    let process = Process::start("late body");
    process.until("ready");
    process.signal("TERM");
    let (code, stderr) = process.end();
    assert_eq!(code, Some(124));
    assert!(stderr.contains("SIGTERM; not stopped in time: a ("), "{stderr}");
}
