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
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use mainstay_test_support::Process;

use crate::child::PROGRAM;

/// A limit that is never reached, so that a test that fails does not hang.
const DEADLINE: Duration = Duration::from_secs(60);

struct Program {
    process: Process,
    lines: Receiver<String>,
}

impl Program {
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
        Self { process: Process::new(child), lines }
    }

    /// Waits until the process writes this line.
    fn until(&self, expected: &str) {
        while self.lines.recv_timeout(DEADLINE).expect(expected) != expected {}
    }

    /// Waits for the end of the process. Returns its exit code, and its standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.process.wait_for_end(DEADLINE);
        let mut stderr = String::new();
        self.process.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status.code(), stderr)
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
            let program = Program::start(executor);
            program.until("ready");
            program.process.signal(signal);
            program.until("b is closed");
            program.until("a is closed");
            program.until(&format!("{name}; 2 services stopped in time"));
            let (code, stderr) = program.end();
            assert_eq!((code, &*stderr), (Some(0), ""), "{executor}");
        }
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (first, second, expected) in
        [("TERM", "TERM", 143), ("INT", "TERM", 143), ("TERM", "INT", 130)]
    {
        let program = Program::start("stubborn");
        program.until("ready");
        program.process.signal(first);
        program.until("the body continues");
        program.process.signal(second);
        assert_eq!(program.end().0, Some(expected));
    }
}

#[test]
fn the_first_signal_is_recorded_before_a_future_is_polled() {
    let mut program = Program::start("late");
    program.until("installed");
    program.process.signal("TERM");
    program.process.child.stdin.take().unwrap().write_all(b"continue\n").unwrap();
    program.until("SIGTERM; 2 services stopped in time");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn the_first_signal_ends_a_process_that_has_no_future_for_it() {
    let program = Program::start("deaf");
    program.until("installed");
    program.process.signal("TERM");
    assert_eq!(program.end().0, Some(143));
}

#[test]
fn a_signal_can_be_awaited_without_a_program() {
    let program = Program::start("by hand");
    program.until("ready");
    program.process.signal("INT");
    program.until("SIGINT, SIGINT and SIGINT");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_signal_during_another_end_does_not_interrupt_it() {
    let program = Program::start("ending");
    program.until("the body continues");
    program.process.signal("TERM");
    program.until("SIGTERM is the reason of the body");
    program.until("nothing to do; 1 service stopped in time");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_supervisor_that_panics_is_in_the_exit_code_and_the_text() {
    let (code, stderr) = Program::start("panicking").end();
    assert_eq!(code, Some(101));
    assert!(stderr.contains("the supervisor of a panicked: no clock"), "{stderr}");
}

#[test]
fn an_error_of_the_start_is_in_the_exit_code_and_the_text() {
    let program = Program::start("failing");
    program.until("a is closed");
    let (code, stderr) = program.end();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the start has failed: invalid digit found in string"), "{stderr}");
}

#[test]
fn a_program_ends_by_the_request_of_a_body() {
    let program = Program::start("requesting");
    program.until("the queue is empty; 1 service stopped in time");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_body_that_does_not_return_is_left_behind() {
    let program = Program::start("late body");
    program.until("ready");
    program.process.signal("TERM");
    let (code, stderr) = program.end();
    assert_eq!(code, Some(124));
    assert!(stderr.contains("SIGTERM; not stopped in time: a ("), "{stderr}");
}
