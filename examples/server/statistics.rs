//! `statistics`: counts the requests for each country. Its body is a worker on a queue: a request
//! never waits for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use mainstay::supervise::Live;
use tokio::sync::mpsc;

/// If more requests than this are waiting to be counted, others are not counted.
const QUEUE: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Statistics {
    jobs: mpsc::Sender<Job>,
    /// The end of the queue. The body takes it.
    queue: Mutex<Option<mpsc::Receiver<Job>>>,
    counts: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug)]
enum Job {
    Count(String),
    Panic,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        Self { jobs, queue: Mutex::new(Some(queue)), counts: Mutex::default() }
    }

    pub(crate) fn count(&self, country: &str) {
        let _ = self.jobs.try_send(Job::Count(country.to_owned()));
    }

    /// Lets the worker panic.
    pub(crate) fn panic(&self) {
        let _ = self.jobs.try_send(Job::Panic);
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn execute(&self, job: Job) {
        match job {
            Job::Count(country) => {
                let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
                *counts.entry(country).or_default() += 1;
            }
            Job::Panic => panic!("requested over HTTP"),
        }
    }
}

/// Executes the jobs until the service must stop.
pub(crate) async fn work(live: Live<Statistics>) {
    let take_queue = |statistics: &Statistics| {
        statistics.queue.lock().unwrap_or_else(PoisonError::into_inner).take()
    };
    let queue = live.instance().and_then(|statistics| take_queue(&statistics));
    let Some(mut queue) = queue else { return };
    loop {
        let job = tokio::select! {
            Some(job) = queue.recv() => job,
            _ = live.stopping() => return,
        };
        // The instance is not kept between two jobs: that would delay its end.
        let Some(statistics) = live.instance() else { return };
        statistics.execute(job);
    }
}
