//! The example server as a process, in a temporary directory.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use mainstay_test_support::Process;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// A limit that is never reached, so that a test that fails does not hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) http: Http,
    process: Process,
    /// Kept open, so that the server can print.
    _stdout: ChildStdout,
    directory: TempDir,
}

/// An HTTP client of the server. Clones share its connections.
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
    /// Starts the server without a configuration, so that it creates one.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let log = File::create(directory.path().join("stderr")).expect("the log can be created");
        let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server can be started");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, first_line) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            let read = lines.read_line(&mut line);
            let _ = sender.send(read.map(|_| (line, lines.into_inner())));
        });
        let result = first_line.recv_timeout(DEADLINE);
        let (line, stdout) = match result {
            Ok(Ok(first)) => first,
            other => {
                let _ = child.kill();
                panic!("the server printed nothing: {other:?}");
            }
        };
        let Some(base) = line.trim().strip_prefix("listening on ").map(str::to_owned) else {
            let _ = child.kill();
            let log = fs::read_to_string(directory.path().join("stderr"));
            panic!("the server printed {line:?}, and to stderr {log:?}");
        };
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
        let http = Http { client: client.expect("a client can be created"), base };
        let process = Process::with_log(child, directory.path().join("stderr"));
        Self { http, process, _stdout: stdout, directory }
    }

    /// Returns the path of a file that the server has created.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("target/example-server").join(name)
    }

    /// Replaces the configuration in one step.
    pub(crate) fn configure(&self, text: &str) {
        let new = self.file("server.toml.new");
        fs::write(&new, text).expect("the new configuration can be written");
        fs::rename(&new, self.file("server.toml")).expect("the file can be renamed");
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).expect("the log can be read")
    }

    /// Returns the number of open database files, or `None` if the system does not list open files.
    pub(crate) fn open_databases(&self) -> Option<usize> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.process.child.id())).ok()?;
        // A file that was closed after `read_dir` has no link.
        let open = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        Some(open.filter(|file| file.extension() == Some("sqlite".as_ref())).count())
    }

    /// Sends SIGTERM, and waits until the server has ended.
    #[cfg(unix)]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait_for_end(DEADLINE)
    }
}

impl Http {
    /// Returns the host and port on which the server listens.
    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Returns whether the server accepts a connection and answers.
    pub(crate) async fn is_answering(&self) -> bool {
        self.client.get(format!("{}/services", self.base)).send().await.is_ok()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.request(Method::POST, path, body).await
    }

    async fn request(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let response = request.body(body.to_owned()).send().await;
        let response = response.unwrap_or_else(|error| panic!("{path}: no response: {error:?}"));
        let retry_after = response.headers().get("retry-after");
        Answer {
            status: response.status(),
            retry_after: retry_after
                .map(|value| value.to_str().expect("the header is text").to_owned()),
            text: response.text().await.expect("the body is text"),
        }
    }

    /// Repeats a GET request until the response is accepted.
    pub(crate) async fn until(
        &self,
        path: &str,
        expected: &str,
        is_expected: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.get(path).await;
            if is_expected(&answer) {
                return answer;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{path}: expected {expected}, received {}",
                answer.text
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}
