//! What the integration tests share. Each of them is a crate of its own and uses a part of this.
#![allow(dead_code)]

#[cfg(feature = "test-kit")]
pub(crate) mod stage;

use std::{
    fmt::Debug,
    future::Future,
    hash::{BuildHasher, RandomState},
    panic,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use mainstay::{Provider, Registry, Running, ServiceId};

/// For what must come at all: only a hang takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// For what must not come: long enough for a wrong one to come most times.
pub(crate) const MOMENT: Duration = Duration::from_millis(5);

/// Provides the service with a value.
pub(crate) fn up<T: Send + Sync + Debug + 'static>(
    registry: &Registry,
    id: ServiceId<T>,
    value: T,
) -> (Provider<T>, Running<T>) {
    let provider = registry.provide(id).unwrap();
    let running = again(&provider, value);
    (provider, running)
}

/// The next attempt of a provider, published at once.
pub(crate) fn again<T: Send + Sync + Debug + 'static>(
    provider: &Provider<T>,
    value: T,
) -> Running<T> {
    provider.begin().wait_timeout(LONG).unwrap().ready(value).unwrap()
}

/// The next attempt of a provider, built from what another service has.
pub(crate) fn again_from<T, D>(
    provider: &Provider<T>,
    dependency: ServiceId<D>,
    value: T,
) -> Running<T>
where
    T: Send + Sync + Debug + 'static,
    D: Send + Sync + Debug + 'static,
{
    let attempt = provider.begin().wait_timeout(LONG).unwrap();
    attempt.wait_for(dependency).wait_timeout(LONG).unwrap();
    attempt.ready(value).unwrap()
}

/// Runs the work on a thread of its own, and fails where it does not come to an end.
#[track_caller]
pub(crate) fn within<R: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> R + Send + 'static,
) -> R {
    let (done, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _done = done;
        work()
    });
    match ended.recv_timeout(LONG) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs: {what}"),
        _ => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
    }
}

/// Waits until it is so, and fails where it never is.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came: {what}");
        thread::yield_now();
    }
}

/// One poll, with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// A waker that counts.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (Arc::clone(&wakes), wakes.into())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts the drops of the values that it makes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Drops(Arc<AtomicUsize>);

/// A value whose drop is counted, once.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) number: u32,
    drops: Drops,
}

impl Drops {
    pub(crate) fn value(&self, number: u32) -> Counted {
        Counted { number, drops: self.clone() }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Where the random numbers of a test come from: `MAINSTAY_SEED`, or a fresh seed that a failure prints.
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new() -> Self {
        let fresh = || RandomState::new().hash_one(0) >> 16;
        Self(match std::env::var("MAINSTAY_SEED") {
            Ok(given) => given.parse().expect("MAINSTAY_SEED is a number"),
            Err(_) => fresh(),
        })
    }

    /// Numbers for one thread or task; others get other streams.
    pub(crate) fn random(&self, stream: u64) -> Random {
        Random(self.0 ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to run this again: MAINSTAY_SEED={}", self.0);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below the bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Lets a random short time pass.
    pub(crate) fn pause(&mut self) {
        match self.below(8) {
            0 => thread::yield_now(),
            1 => thread::sleep(Duration::from_micros(self.below(60) as u64)),
            _ => (0..self.below(2_000)).for_each(|_| std::hint::spin_loop()),
        }
    }
}
