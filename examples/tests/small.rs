//! The two small servers, on plain threads and on smol, as processes, checked by their responses.
//!
//! - They answer every request, including invalid ones, and report a service that is not ready.
//! - They recover from a failure of the data without disconnecting a client, and from a failure of
//!   the listener on the same port.
//! - They start without their data, and answer as soon as the data exists.
//! - However they are asked to stop, they answer all accepted requests and end in order.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use mainstay_test_support::Process;

/// A limit that is never reached, so that a test that fails does not hang.
const DEADLINE: Duration = Duration::from_secs(30);

const EXAMPLES: [&str; 2] = [env!("CARGO_BIN_EXE_threads"), env!("CARGO_BIN_EXE_smol")];

struct Server {
    process: Process,
    input: Option<ChildStdin>,
    stdout_lines: Receiver<String>,
    address: String,
}

struct Client {
    reader: BufReader<TcpStream>,
}

impl Server {
    fn start(example: &str, data: &Path) -> Self {
        let mut child = Command::new(example)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example can be started");
        let (input, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout is a pipe"));
        let (sender, stdout_lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let process = Process::new(child);
        let mut server = Self { process, input, stdout_lines, address: String::new() };
        let first = server.next_line();
        server.address = first.strip_prefix("listening on ").expect(&first).to_owned();
        server
    }

    fn next_line(&self) -> String {
        self.stdout_lines.recv_timeout(DEADLINE).expect("the server must print a line")
    }

    fn client(&self) -> Client {
        let stream =
            TcpStream::connect(&self.address).expect("the server must accept the connection");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client { reader: BufReader::new(stream) }
    }

    fn assert_ends_in_order(&mut self) {
        assert!(self.process.wait_for_end(DEADLINE).success());
        assert_eq!(self.next_line(), "3 services stopped in time");
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the server disconnected after {line:?}");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.answer()
    }

    fn ask_until(&mut self, line: &str, is_expected: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let answer = self.ask(line);
            if is_expected(&answer) {
                return answer;
            }
            assert!(start.elapsed() < DEADLINE, "{line}: {answer}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn ask_until_ready(&mut self, line: &str) -> String {
        self.ask_until(line, |answer| !answer.contains(" is not ready: "))
    }
}

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/server/data"))
}

#[test]
fn both_servers_answer_and_recover_from_failures() {
    for example in EXAMPLES {
        let mut server = Server::start(example, data());
        let mut client = server.client();
        assert_eq!(client.ask_until_ready("FR"), "France: Europe/Paris");
        assert_eq!(client.ask("  fr \r"), "France: Europe/Paris");
        let all = "data ready (up), index ready (up), listener ready (up)";
        client.ask_until("status", |answer| answer == all);

        for _ in 0..3 {
            // Data and index, or only the one that is ready again.
            let failed = client.ask("fail data");
            assert!(failed.ends_with(" failed"), "{failed}");
            assert_eq!(client.ask_until_ready("FR"), "France: Europe/Paris");
        }
        assert!(client.ask("fail unknown").contains("unknown"));
        assert_eq!(client.ask("XX"), "unknown country: \"XX\"");
        for invalid in ["", "status please", "fail", "fail data now", "\0", "🦀 🦀"] {
            assert!(!client.ask(invalid).is_empty(), "{invalid:?}");
        }
        let mut other = server.client();
        other.send(&[0xff; 100_000]);
        drop(other);
        let mut other = server.client();
        other.send(b"\xc3\x28\n");
        assert!(other.answer().starts_with("unknown country"));

        // A failure of the listener disconnects the clients, and it listens on the same port again.
        let response = client.ask("fail listener");
        assert!(response.ends_with(" failed"), "{response}");
        assert_eq!(client.reader.read(&mut [0]).unwrap_or(0), 0, "the client must be disconnected");
        assert_eq!(server.next_line(), format!("listening on {}", server.address));
        assert_eq!(server.client().ask_until_ready("JP"), "Japan: Asia/Tokyo");

        let mut client = server.client();
        assert_eq!(client.ask("stop"), "stopping");
        server.assert_ends_in_order();
    }
}

#[test]
fn without_data_requests_are_answered_as_soon_as_the_data_exists() {
    for example in EXAMPLES {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::start(example, directory.path());
        let mut client = server.client();
        let answer = client.ask("FR");
        assert!(answer.contains(" is not ready: "), "{answer}");
        for file in ["iso3166.tab", "zone1970.tab"] {
            fs::copy(data().join(file), directory.path().join(file)).unwrap();
        }
        assert_eq!(client.ask_until_ready("FR"), "France: Europe/Paris");
        server.input.take();
        server.assert_ends_in_order();
    }
}

#[test]
fn accepted_requests_are_answered_before_the_server_ends() {
    // More than are answered before the server is asked to stop.
    const REQUESTS: usize = 2_000;
    for example in EXAMPLES {
        let mut server = Server::start(example, data());
        let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
        clients.iter_mut().for_each(|client| drop(client.ask_until_ready("FR")));
        // The requests are sent, but not yet answered, when the server is asked to stop.
        clients.iter_mut().for_each(|client| client.send(&b"JP\n".repeat(REQUESTS)));
        server.input.as_mut().unwrap().write_all(b"stop\n").unwrap();
        for client in &mut clients {
            for _ in 0..REQUESTS {
                assert_eq!(client.answer(), "Japan: Asia/Tokyo");
            }
            let mut rest = Vec::new();
            assert_eq!(client.reader.read_to_end(&mut rest).unwrap_or(0), 0);
        }
        server.assert_ends_in_order();
    }
}

#[cfg(unix)]
#[test]
fn a_signal_stops_both_servers_in_order() {
    for example in EXAMPLES {
        for signal in ["TERM", "INT"] {
            let mut server = Server::start(example, data());
            let mut client = server.client();
            client.ask_until_ready("FR");
            server.process.signal(signal);
            server.assert_ends_in_order();
        }
    }
}

#[test]
fn invalid_arguments_are_refused() {
    for example in EXAMPLES {
        for arguments in [&["--listen", "nowhere"][..], &["--data"], &["-x", "y"]] {
            let output = Command::new(example).args(arguments).output().unwrap();
            assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
        }
    }
}
