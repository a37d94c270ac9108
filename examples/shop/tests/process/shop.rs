//! The shop as a process, in a temporary directory.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use mainstay_test_support::Process;
use reqwest::{Certificate, Client, ClientBuilder, StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A limit that is never reached, so that a test that fails does not hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Shop {
    process: Process,
    directory: TempDir,
    customer: Customer,
}

/// A client of the shop.
#[derive(Clone)]
pub(crate) struct Customer {
    client: Client,
    base: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Returns the status of a service, from a listing.
    pub(crate) fn service(&self, name: &str) -> Value {
        let listing = self.json();
        let mut services = listing["services"].as_array().unwrap().iter();
        services.find(|service| service["name"] == name).unwrap().clone()
    }
}

impl Shop {
    /// Starts a shop with this configuration.
    pub(crate) async fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("shop.toml"), config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
            .arg("127.0.0.1:0")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::task::spawn_blocking(move || lines.next()).await.unwrap();
        let Some(Ok(base)) = first else {
            let log = fs::read_to_string(directory.path().join("log"));
            panic!("the shop did not start: {log:?}");
        };
        let client = client().danger_accept_invalid_certs(true).build().unwrap();
        let process = Process::with_log(child, directory.path().join("log"));
        Self { process, directory, customer: Customer { client, base } }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap()
    }

    /// Returns the certificate in its file.
    pub(crate) fn certificate(&self) -> String {
        let text = fs::read_to_string(self.file("tls.pem")).unwrap();
        let end = "-----END CERTIFICATE-----\n";
        text.split_inclusive(end).next().unwrap().to_owned()
    }

    /// Returns a client that accepts this certificate and no other.
    pub(crate) fn trusting(&self, certificate: &str) -> Trusting {
        let certificate = Certificate::from_pem(certificate.as_bytes()).unwrap();
        let client = client().tls_built_in_root_certs(false).add_root_certificate(certificate);
        Trusting(Customer { client: client.build().unwrap(), base: self.customer.base.clone() })
    }

    pub(crate) fn customer(&self) -> Customer {
        self.customer.clone()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.customer.once(path).await.unwrap_or_else(|| panic!("{path}: no response"))
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.customer.post(path, body).await.unwrap_or_else(|| panic!("{path}: no response"))
    }

    pub(crate) async fn order(&self, product: &str, amount: u64) -> Answer {
        self.customer.order_once(product, amount).await.expect("a response")
    }

    pub(crate) async fn status(&self, service: &str) -> Value {
        self.get("/services").await.service(service)
    }

    /// Repeats a request until the answer is as expected.
    pub(crate) async fn until(&self, path: &str, is_expected: impl Fn(&Answer) -> bool) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.get(path).await;
            if is_expected(&answer) {
                return answer;
            }
            let Answer { status, text } = answer;
            assert!(start.elapsed() < DEADLINE, "{path}: {status}: {text}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until connections are refused.
    pub(crate) async fn until_refused(&self) {
        let start = Instant::now();
        while self.customer.once("/livez").await.is_some() {
            assert!(start.elapsed() < DEADLINE, "the shop still answers");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits until the process has ended. Not on this thread: it may run the payment provider.
    pub(crate) async fn wait_for_end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "the shop does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the orders that are not executed, and those that are.
    pub(crate) fn orders_in_database(&self) -> (Vec<i64>, Vec<i64>) {
        let database = Connection::open(self.file("shop.sqlite")).unwrap();
        let numbers = |executed: bool| -> Vec<i64> {
            let select = "SELECT number FROM orders WHERE executed = ?";
            let mut select = database.prepare(select).unwrap();
            let numbers = select.query_map([executed], |row| row.get(0)).unwrap();
            numbers.collect::<Result<_, _>>().unwrap()
        };
        (numbers(false), numbers(true))
    }
}

impl Customer {
    /// Returns the answer, or `None` if the shop does not take the request.
    pub(crate) async fn once(&self, path: &str) -> Option<Answer> {
        self.answer(self.client.get(format!("{}{path}", self.base))).await
    }

    pub(crate) async fn order_once(&self, product: &str, amount: u64) -> Option<Answer> {
        self.post("/orders", &json!({ "product": product, "amount": amount }).to_string()).await
    }

    async fn post(&self, path: &str, body: &str) -> Option<Answer> {
        let request = self.client.post(format!("{}{path}", self.base));
        self.answer(request.header("content-type", "application/json").body(body.to_owned())).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Option<Answer> {
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                Some(Answer { status, text: response.text().await.expect("the whole response") })
            }
            Err(error) if error.is_timeout() => panic!("{error:?}"),
            // The connection was refused, or closed before the shop has read the request.
            Err(_) => None,
        }
    }
}

/// A client that trusts one certificate.
pub(crate) struct Trusting(Customer);

impl Trusting {
    /// Returns the answer, or `None` if the certificate is another one.
    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        self.0.once(path).await
    }
}

fn client() -> ClientBuilder {
    // A connection for each request.
    Client::builder().no_proxy().timeout(DEADLINE).pool_max_idle_per_host(0)
}
