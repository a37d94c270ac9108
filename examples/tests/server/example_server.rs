//! The example server as a process of its own, in a directory of its own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing takes this long; it only keeps a test that fails from hanging.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) http: Http,
    child: Child,
    /// Held open, so that the server can print.
    _stdout: ChildStdout,
    directory: TempDir,
}

/// Asks the server; cheap to clone for many clients at a time.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
    pub(crate) text: String,
}

impl Server {
    /// Starts the server without a configuration, so that it makes its own.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = File::create(directory.path().join("stderr")).expect("a file for the log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, first_line) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            let read = lines.read_line(&mut line);
            let _ = sender.send(read.map(|_| (line, lines.into_inner())));
        });
        let said = first_line.recv_timeout(DEADLINE);
        let (line, stdout) = match said {
            Ok(Ok(said)) => said,
            other => {
                let _ = child.kill();
                panic!("the server said nothing: {other:?}");
            }
        };
        let Some(base) = line.trim().strip_prefix("listening on ").map(str::to_owned) else {
            let _ = child.kill();
            let log = fs::read_to_string(directory.path().join("stderr"));
            panic!("the server said {line:?}, and on stderr {log:?}");
        };
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
        let http = Http { client: client.expect("a client"), base };
        Self { http, child, _stdout: stdout, directory }
    }

    /// A file of the directory that the server made for itself.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("target/example-server").join(name)
    }

    /// Puts a new configuration in place of the old one, in one step.
    pub(crate) fn configure(&self, text: &str) {
        let new = self.file("server.toml.new");
        fs::write(&new, text).expect("the new configuration is written");
        fs::rename(&new, self.file("server.toml")).expect("it takes the place of the old one");
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).expect("the log is there")
    }

    /// How many files of databases it has open; `None` where the system does not tell.
    pub(crate) fn open_databases(&self) -> Option<usize> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?;
        // What is closed meanwhile is not there any more.
        let open = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        Some(open.filter(|file| file.extension() == Some("sqlite".as_ref())).count())
    }

    /// Asks for an end in order and waits for it.
    #[cfg(unix)]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(kill.expect("kill can be called").success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the server can be waited for") {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "the server does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("the end of the server's log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Http {
    /// Where it listens: host and port.
    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let response = request.body(body.to_owned()).send().await;
        let response = response.unwrap_or_else(|error| panic!("{path}: no answer: {error:?}"));
        let retry_after = response.headers().get("retry-after");
        Answer {
            status: response.status(),
            retry_after: retry_after.map(|value| value.to_str().expect("a number").to_owned()),
            text: response.text().await.expect("a body of text"),
        }
    }

    /// Asks again and again until the answer is the one hoped for.
    pub(crate) async fn until(
        &self,
        path: &str,
        what: &str,
        hoped: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.get(path).await;
            if hoped(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < DEADLINE, "{path}: still not {what}, but {}", answer.text);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}
