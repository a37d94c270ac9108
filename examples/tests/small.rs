//! The two small examples, on plain threads and on smol, started for real and judged by what they say.
//!
//! - They answer, also to nonsense, and say what is not ready.
//! - A failure of what a request reads is mended, and hangs up on no client. One of the listener is mended, on its port.
//! - Without their data they are up, and answer once it is there.
//! - Told to stop, in whatever way, they answer what they were asked, and end in order.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// Nothing takes this long; it only keeps a test that fails from hanging.
const DEADLINE: Duration = Duration::from_secs(30);

const EXAMPLES: [&str; 2] = [env!("CARGO_BIN_EXE_threads"), env!("CARGO_BIN_EXE_smol")];

struct Server {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<String>,
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
            .expect("the example starts");
        let (input, stdout) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut server = Self { child, input, said, address: String::new() };
        let first = server.says();
        server.address = first.strip_prefix("listening on ").expect(&first).to_owned();
        server
    }

    fn says(&self) -> String {
        self.said.recv_timeout(DEADLINE).expect("it says something")
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(&self.address).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client { reader: BufReader::new(stream) }
    }

    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ends_in_order(&mut self) {
        assert!(self.ended().success());
        assert_eq!(self.says(), "all services have stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it hung up after {line:?}");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.answer()
    }

    fn ask_until(&mut self, line: &str, hoped: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let answer = self.ask(line);
            if hoped(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < DEADLINE, "{line}: {answer}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn ask_until_ready(&mut self, line: &str) -> String {
        self.ask_until(line, |answer| !answer.starts_with("not ready: "))
    }
}

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/server/data"))
}

#[test]
fn they_answer_and_mend_what_fails() {
    for example in EXAMPLES {
        let mut server = Server::start(example, data());
        let mut client = server.client();
        assert_eq!(client.ask_until_ready("FR"), "France: Europe/Paris");
        assert_eq!(client.ask("  fr \r"), "France: Europe/Paris");
        let all = "data ready (up), index ready (up), listener ready (up)";
        client.ask_until("status", |answer| answer == all);

        for _ in 0..3 {
            // Both, or those of them that are up again already.
            let failed = client.ask("fail data");
            assert!(failed.ends_with(" went down"), "{failed}");
            assert_eq!(client.ask_until_ready("FR"), "France: Europe/Paris");
        }
        assert!(client.ask("fail nobody").contains("nobody"));
        assert_eq!(client.ask("XX"), "no such country: \"XX\"");
        for nonsense in ["", "status please", "fail", "fail data now", "\0", "🦀 🦀"] {
            assert!(!client.ask(nonsense).is_empty(), "{nonsense:?}");
        }
        let mut other = server.client();
        other.send(&[0xff; 100_000]);
        drop(other);
        let mut other = server.client();
        other.send(b"\xc3\x28\n");
        assert!(other.answer().starts_with("no such country"));

        // The listener, too: it hangs up, and listens again where it did.
        let was = client.ask("fail listener");
        assert!(was.ends_with(" went down"), "{was}");
        assert_eq!(client.reader.read(&mut [0]).unwrap_or(0), 0, "it hung up");
        assert_eq!(server.says(), format!("listening on {}", server.address));
        assert_eq!(server.client().ask_until_ready("JP"), "Japan: Asia/Tokyo");

        let mut client = server.client();
        assert_eq!(client.ask("stop"), "stopping");
        server.ends_in_order();
    }
}

#[test]
fn without_data_they_say_so() {
    for example in EXAMPLES {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::start(example, directory.path());
        let mut client = server.client();
        let answer = client.ask("FR");
        assert!(answer.starts_with("not ready: "), "{answer}");
        for file in ["iso3166.tab", "zone1970.tab"] {
            fs::copy(data().join(file), directory.path().join(file)).unwrap();
        }
        assert_eq!(client.ask_until_ready("FR"), "France: Europe/Paris");
        server.input.take();
        server.ends_in_order();
    }
}

#[test]
fn what_was_asked_is_answered_at_the_end() {
    // More than is answered by the time that the end comes.
    const MANY: usize = 2_000;
    for example in EXAMPLES {
        let mut server = Server::start(example, data());
        let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
        clients.iter_mut().for_each(|client| drop(client.ask_until_ready("FR")));
        // Asked, not answered; then the end.
        clients.iter_mut().for_each(|client| client.send(&b"JP\n".repeat(MANY)));
        server.input.as_mut().unwrap().write_all(b"stop\n").unwrap();
        for client in &mut clients {
            for _ in 0..MANY {
                assert_eq!(client.answer(), "Japan: Asia/Tokyo");
            }
            let mut rest = Vec::new();
            assert_eq!(client.reader.read_to_end(&mut rest).unwrap_or(0), 0);
        }
        server.ends_in_order();
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for example in EXAMPLES {
        for arguments in [&["--listen", "nowhere"][..], &["--data"], &["-x", "y"]] {
            let output = Command::new(example).args(arguments).output().unwrap();
            assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
        }
    }
}
