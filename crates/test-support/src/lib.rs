//! Helpers that the tests of several packages share: random numbers that a seed repeats, a single
//! poll of a future, the ways in which threads read, and a process. This crate does not depend on
//! mainstay, so that it is the same crate under every flag and feature with which mainstay is
//! tested.

use std::{
    env,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

mod process;

pub use process::Process;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[expect(clippy::should_implement_trait, reason = "this sequence has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below the bound.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns true with this probability, in percent.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Returns a different stream of numbers, for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Yields, sleeps or spins for a random short time.
    pub fn pause(&mut self) {
        match self.below(8) {
            0 => thread::yield_now(),
            1 => thread::sleep(Duration::from_micros(self.below(60) as u64)),
            _ => (0..self.below(2_000)).for_each(|_| std::hint::spin_loop()),
        }
    }
}

/// The source of the random numbers of one test: `MAINSTAY_SEED` if it is set, otherwise a fresh
/// seed. A test that fails prints its seed.
pub struct Seed(u64);

impl Seed {
    #[expect(clippy::new_without_default, reason = "two calls return different seeds")]
    pub fn new() -> Self {
        Self(match std::env::var("MAINSTAY_SEED") {
            Ok(given) => given.parse().expect("MAINSTAY_SEED is a number"),
            Err(_) => fresh_seed(),
        })
    }

    /// Returns the numbers of one thread or task. Each stream has different numbers.
    pub fn random(&self, stream: u64) -> Random {
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

/// Returns a seed that differs in each call, and that is short enough to be typed.
pub fn fresh_seed() -> u64 {
    RandomState::new().hash_one(0) >> 16
}

/// Returns how many guards of one instance a thread keeps, so that some threads announce what they
/// read, others count references, and others do the one or the other. `MAINSTAY_READS=announced` or
/// `=counted` lets all do the same.
///
/// The first read of an instance counts a reference. The others occupy the eight places of a
/// thread.
pub fn guards_to_keep(thread: usize) -> usize {
    match env::var("MAINSTAY_READS").as_deref() {
        Ok("announced") => 0,
        Ok("counted") => 9,
        Ok(other) => panic!("MAINSTAY_READS={other}: announced or counted"),
        Err(_) => [0, 9, 7][thread % 3],
    }
}

/// Polls the future once, with a waker that does nothing. `&mut future` polls one that is kept.
pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// The first numbers of the reference implementation (`splitmix64.c`, Sebastiano Vigna) for 0.
    #[test]
    fn random_numbers_are_splitmix64() {
        let mut random = Random::new(0);
        let numbers = [random.next(), random.next(), random.next()];
        assert_eq!(numbers, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    #[test]
    fn one_poll_says_whether_a_future_is_ready() {
        assert_eq!(poll_once(ready(7)), Poll::Ready(7));
        let mut never = pending::<()>();
        assert!(poll_once(&mut never).is_pending() && poll_once(&mut never).is_pending());
    }
}
